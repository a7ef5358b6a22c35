"""dhcp/policy.py: who is answered, with what, by which way, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dhcp.clients
from dhcp.boards import BOOT_ROM_GUID, BOOT_ROM_XID, TRAITS, Nature
from dhcp.frames import BROADCAST_MAC
from dhcp.packet import NO_ADDRESS, Option, Packet, Value, parse
from dhcp.policy import PROBE_TIME, DhcpPolicy
from dhcp.replies import (
    BROADCAST,
    PI_BOOT_MENU,
    Action,
    DhcpSettings,
    ForgetLease,
    Ignore,
    Notice,
    Probe,
    Reply,
    SaveLease,
    Subnet,
)
from utility.hosts import Host
from utility.service import Report, Severity, Stage

SERVER = IPv4Address("172.30.4.1")
FOREIGN = IPv4Address("172.30.4.9")
ADDRESS = IPv4Address("172.30.4.13")
MAC = "b8:27:eb:01:02:03"
HOST = Host(MAC, ADDRESS, "pi3")
SETTINGS = DhcpSettings(SERVER, IPv4Network("172.30.4.0/24"))
FULL = DhcpSettings(
    SERVER,
    IPv4Network("172.30.4.0/24"),
    lease_time=800,
    router=IPv4Address("172.30.4.254"),
    dns=(IPv4Address("10.1.1.1"), IPv4Address("10.2.2.2")),
    domain="rack.example",
    ntp_servers=(IPv4Address("10.3.3.3"),),
)
LOADER = "PXEClient:Arch:00000:UNDI:002001"
GUID = bytes.fromhex("00346950521431d000010902f73df0cd91")
PI4_FACTS = {"model": "Pi 4", "serial": "91cdf03d", "revision": "d03114"}
PI_LIST = (1, 3, 43, 60, 66, 67, 128, 129)
BOOT_ROM_DELAY = TRAITS[Nature.BOOT_ROM].deaf
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)


def policy(options: DhcpSettings = SETTINGS, host: Host = HOST) -> DhcpPolicy:
    return DhcpPolicy(options, {host.mac: host}.get)


def message(kind: int, options: dict[int, Value] | None = None, **fields: object) -> Packet:
    chaddr = bytes.fromhex(MAC.replace(":", ""))
    packet = Packet(op=1, xid=0x01020304, chaddr=chaddr, options={Option.MESSAGE_TYPE: kind, **(options or {})})
    changes: dict[str, Any] = dict(fields)
    return replace(packet, **changes)


def loader(kind: int, options: dict[int, Value] | None = None, **fields: object) -> Packet:
    pxe: dict[int, Value] = {55: PI_LIST, 93: b"\0\0", 94: b"\1\2\1", 97: GUID, 60: LOADER}
    return message(kind, pxe | (options or {}), **fields)


def boot_rom(**fields: object) -> Packet:
    return loader(DISCOVER, {97: BOOT_ROM_GUID}, **({"xid": BOOT_ROM_XID} | fields))


def selecting(**options: Value) -> dict[int, Value]:
    return {54: options.get("server", SERVER), 50: options.get("address", ADDRESS)}


def split(actions: list[Action]) -> tuple[list[Reply], list[Ignore], list[Notice]]:
    return (
        [each for each in actions if isinstance(each, Reply)],
        [each for each in actions if isinstance(each, Ignore)],
        [each for each in actions if isinstance(each, Notice)],
    )


def reply_to(packet: Packet, options: DhcpSettings = SETTINGS, now: float = 100.0) -> Reply:
    (reply,), ignored, _ = split(policy(options).receive(packet, now))
    assert not ignored
    assert parse(reply.packet.encode()) == reply.packet
    return reply


def ignored(packet: Packet, it: DhcpPolicy | None = None) -> str:
    replies, (ignore,), _ = split((it or policy()).receive(packet, 100.0))
    assert not replies
    return ignore.reason


# --- the reply that a Pi wants ---


def test_the_offer_to_a_pi() -> None:
    reply = reply_to(loader(DISCOVER, flags=0, secs=7, hops=3, ciaddr=IPv4Address("1.2.3.4")), FULL)
    assert reply.packet == Packet(
        op=2,
        xid=0x01020304,
        chaddr=bytes.fromhex("b827eb010203"),
        yiaddr=ADDRESS,
        siaddr=SERVER,
        options={
            53: OFFER,
            54: SERVER,
            51: 800,
            58: 400,
            59: 700,
            1: IPv4Address("255.255.255.0"),
            60: "PXEClient",
            43: bytes.fromhex(
                "0601030a0400505845091700001452617370626572727920506920426f6f74202020ff"  # as captured, 35 bytes
            ),
            66: "172.30.4.1",
            97: GUID,
            3: (IPv4Address("172.30.4.254"),),
        },
    )
    assert (reply.address, reply.mac, reply.port) == (ADDRESS, MAC, 68)
    assert (reply.not_before, reply.neighbour) == (0.0, False)
    assert len(PI_BOOT_MENU) == 35


def test_what_a_pi_is_told_of() -> None:
    it = policy()
    _, _, (heard,) = split(it.receive(loader(DISCOVER), 1.0))
    assert heard.name == "pi3"
    assert (heard.report.mac, heard.report.stage, heard.report.heard) == (MAC, Stage.DISCOVER, "DHCPDISCOVER")
    assert heard.report.event == "the boot loader of a Pi 4 asks for an address"
    assert heard.report.facts == PI4_FACTS
    (reply,), _, _ = split(it.receive(loader(REQUEST, selecting()), 2.0))
    assert reply.notice is not None
    report = reply.notice.report
    assert (report.stage, report.sent) == (Stage.LEASE, "DHCPACK 172.30.4.13")
    assert report.event == "the boot loader of a Pi 4 has 172.30.4.13"
    assert report.facts == {"address": "172.30.4.13", **PI4_FACTS}


def test_offer_and_ack_are_told_when_sent() -> None:
    offer = reply_to(loader(DISCOVER))
    assert offer.notice is not None
    assert (offer.notice.report.stage, offer.notice.report.sent) == (None, "DHCPOFFER 172.30.4.13")


def test_a_request_without_options_60_and_97_leans_on_its_discover() -> None:
    it = policy()
    it.receive(loader(DISCOVER), 1.0)
    (reply,), _, _ = split(it.receive(message(REQUEST, selecting()), 2.0))
    assert reply.packet.options[43] == PI_BOOT_MENU
    assert reply.packet.options[97] == GUID
    assert reply.notice is not None
    assert reply.notice.report.stage is Stage.LEASE


@pytest.mark.parametrize("options", [{50: ADDRESS}, {}])
def test_a_request_of_another_state_does_not(options: dict[int, Value]) -> None:
    it = policy()
    it.receive(loader(DISCOVER), 1.0)
    (reply,), _, _ = split(it.receive(message(REQUEST, options, ciaddr=NO_ADDRESS if options else ADDRESS), 2.0))
    assert 43 not in reply.packet.options
    assert reply.notice is not None
    assert reply.notice.report.stage is Stage.UP


def test_the_memory_of_discovers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp.clients, "MAX_CLIENTS", 2)
    it = DhcpPolicy(SETTINGS, lambda mac: Host(mac, ADDRESS))
    for last in (1, 2, 1, 3):
        it.receive(loader(DISCOVER, chaddr=bytes((2, 0, 0, 0, 0, last))), 1.0)
    for last, remembered in ((1, True), (3, True), (2, False)):
        (reply,), _, _ = split(it.receive(message(REQUEST, selecting(), chaddr=bytes((2, 0, 0, 0, 0, last))), 2.0))
        assert (43 in reply.packet.options) is remembered


def test_another_pxe_client_gets_an_address_and_no_pi_menu() -> None:
    it = policy()
    (offer,), _, (heard,) = split(
        it.receive(loader(DISCOVER, {60: "PXEClient:Arch:00007", 93: b"\0\7", 97: b"\0pc"}), 1.0)
    )
    assert offer.packet.yiaddr == ADDRESS
    assert not {43, 60, 66} & set(offer.packet.options)
    assert offer.packet.options[97] == b"\0pc"
    assert heard.report.stage is Stage.DISCOVER
    assert heard.report.event == "UEFI asks for an address"


def test_a_pi_without_guid() -> None:
    request = message(DISCOVER, {60: LOADER})
    assert 97 not in reply_to(request).packet.options


@pytest.mark.parametrize(
    ("vendor_class", "stage", "event"),
    [
        ("piman-installer", None, "the installer has 172.30.4.13"),
        ("dhcpcd-9.4.1:Linux", Stage.UP, "the operating system has 172.30.4.13"),
    ],
)
def test_who_is_no_pxe_client(vendor_class: str, stage: Stage | None, event: str) -> None:
    it = policy()
    (offer,), _, (heard,) = split(it.receive(message(DISCOVER, {60: vendor_class}), 1.0))
    assert not {43, 60, 66, 97} & set(offer.packet.options)
    assert offer.packet.siaddr == SERVER
    assert (heard.report.stage, heard.report.event) == (None, "")
    (ack,), _, _ = split(it.receive(message(REQUEST, {60: vendor_class, **selecting()}), 2.0))
    assert ack.notice is not None
    assert (ack.notice.report.stage, ack.notice.report.event) == (stage, event)


# --- the boot ROM of the Pi 3B ---


@pytest.mark.parametrize(
    "request_packet",
    [boot_rom(), boot_rom(xid=1), message(DISCOVER, {60: LOADER}, xid=BOOT_ROM_XID)],
    ids=["both", "guid", "xid"],
)
def test_the_boot_rom_has_what_it_is_offered_and_is_answered_late(request_packet: Packet) -> None:
    (reply,), _, (heard,) = split(policy().receive(request_packet, 100.0))
    assert reply.not_before == 100.0 + BOOT_ROM_DELAY
    assert reply.neighbour
    assert (reply.address, reply.mac) == (ADDRESS, MAC)
    assert reply.packet.options[53] == OFFER
    assert heard.report.stage is Stage.DISCOVER
    assert reply.notice is not None
    assert reply.notice.report.stage is Stage.LEASE
    assert reply.notice.report.event.endswith("has 172.30.4.13")


def test_a_boot_rom_that_asks_for_broadcast() -> None:
    reply = reply_to(boot_rom(flags=0x8000))
    assert (reply.mac, reply.not_before, reply.neighbour) == (BROADCAST_MAC, 101.2, True)


def test_one_late_answer_at_a_time() -> None:
    it = policy()
    it.receive(boot_rom(), 100.0)
    assert split(it.receive(boot_rom(), 101.1))[1] == [Ignore("its delayed offer is on the way")]
    assert split(it.receive(message(DISCOVER), 101.1))[1] == []
    (reply,), _, _ = split(it.receive(boot_rom(), 105.0))
    assert reply.not_before == 105.0 + BOOT_ROM_DELAY


BOOTCODE_GUID = b"\0" + bytes.fromhex("164c6cb6") * 4


@pytest.mark.parametrize("kind", [DISCOVER, REQUEST])
def test_bootcode_has_that_xid_and_its_serial_and_is_answered_at_once(kind: int) -> None:
    options: dict[int, Value] = {97: BOOTCODE_GUID, **(selecting() if kind == REQUEST else {})}
    reply = reply_to(loader(kind, options, xid=BOOT_ROM_XID))
    assert (reply.not_before, reply.neighbour) == (0.0, False)
    assert reply.notice is not None
    report = reply.notice.report  # whether it will send a REQUEST is not known
    assert (report.stage, report.facts["serial"]) == (Stage.LEASE, "b66c4c16")
    assert report.event == "the boot loader of a Pi 3 has 172.30.4.13"


@pytest.mark.parametrize(
    ("packet", "wanted", "at"),
    [
        (boot_rom(), None, 101.2),
        (boot_rom(), 0.0, 0.0),
        (boot_rom(), 2.5, 102.5),
        (loader(DISCOVER), None, 0.0),
        (loader(DISCOVER), 2.5, 102.5),
        (message(DISCOVER), 2.5, 0.0),
        (loader(REQUEST, selecting()), 2.5, 0.0),
    ],
)
def test_the_delay_that_was_configured(packet: Packet, wanted: float | None, at: float) -> None:
    assert reply_to(packet, replace(SETTINGS, reply_delay=wanted)).not_before == at


def test_another_program_does_not_wait_for_the_delayed_offer_of_the_last() -> None:
    it = policy(replace(SETTINGS, reply_delay=3.0))
    for xid in (1, 2):
        (reply,), _, _ = split(it.receive(loader(DISCOVER, xid=xid), 100.0 + xid))
        assert reply.not_before == 103.0 + xid


def test_an_operating_system_with_that_xid_is_no_boot_rom() -> None:
    assert reply_to(message(DISCOVER, xid=BOOT_ROM_XID)).not_before == 0.0


# --- the states of REQUEST ---

ELSEWHERE = IPv4Address("10.0.0.7")
TAKEN = IPv4Address("172.30.4.77")


@pytest.mark.parametrize(
    ("options", "ciaddr", "kind", "state"),
    [
        (selecting(), NO_ADDRESS, ACK, "selecting"),
        ({54: SERVER}, NO_ADDRESS, ACK, "selecting"),
        (selecting(address=TAKEN), NO_ADDRESS, NAK, "selecting"),
        ({50: ADDRESS}, NO_ADDRESS, ACK, "init-reboot"),
        ({50: TAKEN}, NO_ADDRESS, NAK, "init-reboot"),
        ({50: ELSEWHERE}, NO_ADDRESS, NAK, "init-reboot"),
        ({}, ADDRESS, ACK, "renewing"),
        ({50: TAKEN}, ADDRESS, ACK, "renewing"),
        ({}, TAKEN, NAK, "renewing"),
        ({}, ELSEWHERE, NAK, "renewing"),
    ],
)
def test_request(options: dict[int, Value], ciaddr: IPv4Address, kind: int, state: str) -> None:
    reply = reply_to(message(REQUEST, {61: b"\1id", **options}, ciaddr=ciaddr))
    wanted = options.get(50) if ciaddr == NO_ADDRESS else ciaddr
    assert reply.packet.options[53] == kind
    assert reply.packet.options[54] == SERVER
    assert reply.packet.options[61] == b"\1id"
    assert reply.notice is not None
    assert state in reply.notice.report.heard
    if kind == NAK:
        assert (reply.address, reply.mac) == (BROADCAST, BROADCAST_MAC)
        wrong = "its address is 172.30.4.13" if wanted != ELSEWHERE else "it is on 172.30.4.0/24"
        assert reply.packet.options == {53: NAK, 54: SERVER, 61: b"\1id", 56: wrong}
        assert (reply.packet.yiaddr, reply.packet.ciaddr, reply.packet.siaddr) == (NO_ADDRESS,) * 3
        assert reply.notice.report.stage is None
    elif state == "renewing":
        assert (reply.address, reply.mac, reply.packet.ciaddr) == (ADDRESS, "", ADDRESS)
        assert reply.notice.report.event == ""
    else:
        assert (reply.address, reply.mac, reply.packet.ciaddr) == (ADDRESS, MAC, NO_ADDRESS)
        assert reply.notice.report.event != ""


def test_a_request_of_no_state() -> None:
    assert ignored(message(REQUEST)) == "a REQUEST of no state"


def test_a_nak_is_told_once() -> None:
    it = policy()
    events = []
    for now in (1.0, 2.0, 7.0):
        (reply,), _, _ = split(it.receive(message(REQUEST, {50: TAKEN}), now))
        assert reply.notice is not None
        events.append(reply.notice.report.event)
    text = "the operating system asked for 172.30.4.77, but its address is 172.30.4.13"
    assert events == [text, "", text]


def test_a_client_that_took_another_servers_offer() -> None:
    it = policy()
    replies, (ignore,), (notice, network) = split(it.receive(loader(REQUEST, selecting(server=FOREIGN)), 1.0))
    assert not replies
    assert ignore.reason == "took another server's offer"
    assert notice.report.severity is Severity.WARNING
    assert "another DHCP server, 172.30.4.9" in notice.report.event
    assert (network.report.mac, network.report.severity) == ("", Severity.WARNING)
    assert network.report.event == "another DHCP server, 172.30.4.9, answers on this network"
    _, _, (again,) = split(it.receive(loader(REQUEST, selecting(server=FOREIGN)), 60.0))
    assert (again.report.event, again.report.severity) == ("", Severity.INFO)
    _, _, (later,) = split(it.receive(loader(REQUEST, selecting(server=FOREIGN)), 61.0))
    assert later.report.event != ""


# --- the way of a reply ---


@pytest.mark.parametrize("kind", [DISCOVER, REQUEST])
def test_broadcast_where_the_flag_asks_for_it(kind: int) -> None:
    reply = reply_to(loader(kind, selecting() if kind == REQUEST else {}, flags=0x8000, secs=1))
    assert (reply.address, reply.mac) == (BROADCAST, BROADCAST_MAC)
    assert reply.packet.flags == 0x8000
    assert reply_to(loader(kind, selecting() if kind == REQUEST else {}, secs=0x8000)).mac == MAC


def test_a_client_that_renews_gets_it_by_its_address_even_with_the_flag() -> None:
    assert reply_to(message(REQUEST, ciaddr=ADDRESS, flags=0x8000)).mac == ""


# --- options ---


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((), [53, 54, 51, 58, 59, 1, 3, 6, 12, 15, 28, 42]),
        ((42, 28, 12, 3, 1, 6), [53, 54, 51, 58, 59, 1, 42, 28, 12, 3, 6]),
        ((42, 42, 99, 12), [53, 54, 51, 58, 59, 1, 42, 12]),
    ],
)
def test_the_order_asked_for(asked: tuple[int, ...], given: list[int]) -> None:
    reply = reply_to(message(DISCOVER, {55: asked} if asked else {}), FULL)
    assert list(reply.packet.options) == given
    assert reply.packet.options[12] == "pi3"


def test_what_is_not_configured_is_not_sent() -> None:
    (reply,), _, _ = split(policy(host=Host(MAC, ADDRESS)).receive(message(DISCOVER), 1.0))
    options = reply.packet.options
    assert not {3, 6, 12, 15} & set(options)
    assert options[42] == (SERVER,)
    assert options[28] == IPv4Address("172.30.4.255")


@pytest.mark.parametrize(("size", "there"), [(None, False), (100, False), (900, True), (65535, True)])
def test_the_client_says_how_much_it_takes(size: int | None, there: bool) -> None:
    many = replace(SETTINGS, dns=tuple(IPv4Address(n) for n in range(1, 101)))
    options: dict[int, Value] = {} if size is None else {57: size}
    reply = reply_to(message(DISCOVER, options), many)
    assert (6 in reply.packet.options) is there
    assert reply.packet.options[42] == (SERVER,)


def test_no_reply_is_longer_than_a_frame_holds() -> None:
    many = replace(SETTINGS, dns=tuple(IPv4Address(n) for n in range(1, 400)))
    assert len(reply_to(message(DISCOVER, {57: 65535}), many).packet.encode()) <= 1472


# --- the other messages ---


def test_inform() -> None:
    reply = reply_to(message(INFORM, ciaddr=TAKEN))
    assert (reply.address, reply.mac) == (TAKEN, "")
    assert (reply.packet.yiaddr, reply.packet.ciaddr) == (NO_ADDRESS, TAKEN)
    assert reply.packet.options[53] == ACK
    assert not {51, 58, 59} & set(reply.packet.options)
    assert reply.packet.options[1] == IPv4Address("255.255.255.0")
    assert reply.notice is not None
    assert (reply.notice.report.stage, reply.notice.report.event) == (Stage.UP, "")


@pytest.mark.parametrize("ciaddr", [NO_ADDRESS, ELSEWHERE])
def test_inform_from_elsewhere(ciaddr: IPv4Address) -> None:
    assert ignored(message(INFORM, ciaddr=ciaddr)) == "an INFORM from another network"


def test_decline() -> None:
    replies, _, (notice,) = split(policy().receive(message(DECLINE, selecting()), 1.0))
    assert not replies
    assert notice.report.severity is Severity.WARNING
    assert "declined 172.30.4.13" in notice.report.event
    assert ignored(message(DECLINE, selecting(server=FOREIGN))) == "declined another server's offer"


def test_release() -> None:
    replies, _, (notice,) = split(policy().receive(message(RELEASE, {54: SERVER}, ciaddr=ADDRESS), 1.0))
    assert not replies
    assert notice.report.event == "the operating system gave 172.30.4.13 back"
    assert notice.report.stage is None
    assert ignored(message(RELEASE, {54: FOREIGN})) == "released another server's lease"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (message(DISCOVER, op=2), "no message of a client"),
        (message(OFFER), "no message of a client"),
        (message(99), "no message of a client"),
        (replace(message(DISCOVER), options={}), "no message of a client"),
        (message(DISCOVER, giaddr=ELSEWHERE), "relayed from an unknown network"),
        (message(DISCOVER, htype=6), "not Ethernet"),
        (message(DISCOVER, chaddr=bytes(8)), "not Ethernet"),
    ],
)
def test_ignored(packet: Packet, reason: str) -> None:
    assert ignored(packet) == reason


@pytest.mark.parametrize("address", [ELSEWHERE, NO_ADDRESS, SERVER])
def test_a_host_whose_address_cannot_be_given(address: IPv4Address) -> None:
    it = policy(host=Host(MAC, address))
    assert ignored(message(DISCOVER), it) == "its address in hosts.csv is none of this network"


# --- strangers ---

STRANGER = bytes.fromhex("020000000001")


@pytest.mark.parametrize("kind", [REQUEST, DECLINE, RELEASE, INFORM])
def test_a_stranger_gets_nothing(kind: int) -> None:
    assert policy().receive(loader(kind, {50: ELSEWHERE}, chaddr=STRANGER), 1.0) == [Ignore("unknown MAC")]


def test_a_strangers_discover_is_told() -> None:
    replies, (ignore,), (notice,) = split(policy().receive(loader(DISCOVER, chaddr=STRANGER), 1.0))
    assert not replies
    assert ignore.reason == "unknown MAC"
    assert notice.name == ""
    report = notice.report
    assert (report.mac, report.stage, report.facts) == ("02:00:00:00:00:01", None, PI4_FACTS)
    assert report.event == (
        "asks for an address, but is not in hosts.csv "
        '(vendor class "PXEClient:Arch:00000:UNDI:002001", model Pi 4, serial 91cdf03d, revision d03114)'
    )


def test_a_strangers_text_moves_no_cursor() -> None:
    _, _, (notice,) = split(policy().receive(message(DISCOVER, {60: "\x1b[2J\né" + "x" * 99}, chaddr=STRANGER), 1.0))
    assert '"?[2J??' + "x" * 55 + '..."' in notice.report.event
    _, _, (silent,) = split(policy().receive(message(DISCOVER, chaddr=STRANGER), 1.0))
    assert silent.report.event == "asks for an address, but is not in hosts.csv"


# --- strangers that wait for approval ---

APPROVE = replace(SETTINGS, unknown_pis="approve")


def test_a_board_that_looks_like_a_pi_waits_for_approval() -> None:
    hosts: dict[str, Host] = {}
    it = DhcpPolicy(APPROVE, hosts.get)
    replies, (ignore,), (notice,) = split(it.receive(loader(DISCOVER), 1.0))
    assert not replies
    assert ignore.reason == "waits for approval"
    report = notice.report
    assert report.facts == {"waiting": "yes", "vendor": "Raspberry Pi", **PI4_FACTS}
    assert report.event.startswith("waits for approval: write it into hosts.csv (vendor class")
    _, _, (again,) = split(it.receive(loader(DISCOVER), 5.0))
    assert (again.report.event, again.report.facts["waiting"]) == ("", "yes")
    hosts[MAC] = HOST
    (reply,), _, (heard,) = split(it.receive(loader(DISCOVER), 9.0))
    assert reply.packet.yiaddr == ADDRESS
    assert heard.report.facts == {"waiting": "no", **PI4_FACTS}
    _, _, (heard,) = split(it.receive(loader(DISCOVER), 10.0))
    assert heard.report.facts == PI4_FACTS


def test_what_is_no_pi_waits_for_nothing() -> None:
    it = DhcpPolicy(APPROVE, lambda _: None)
    assert it.receive(message(DISCOVER, {60: "MSFT 5.0"}, chaddr=STRANGER), 1.0) == [Ignore("unknown MAC")]
    assert it.receive(loader(REQUEST), 1.0) == [Ignore("unknown MAC")]
    _, _, (notice,) = split(it.receive(loader(DISCOVER, chaddr=STRANGER), 1.0))
    assert "vendor" not in notice.report.facts


# --- the pool ---

POOL = (IPv4Address("172.30.4.100"), IPv4Address("172.30.4.101"))
POOLED = replace(SETTINGS, unknown_pis="pool", pool=POOL)
SECOND = bytes.fromhex("020000000002")
THIRD = bytes.fromhex("020000000003")


class PoolBench:
    """A policy with a pool of two addresses, and hosts.csv."""

    def __init__(self, options: DhcpSettings = POOLED, leases: Sequence[tuple[str, IPv4Address, float]] = ()) -> None:
        self.hosts: dict[str, Host] = {}
        self.it = DhcpPolicy(options, self.hosts.get, self.by_address, leases, epoch=1000.0)

    def by_address(self, address: IPv4Address) -> Host | None:
        return next((host for host in self.hosts.values() if host.address == address), None)

    def write(self, mac: str, address: IPv4Address) -> None:
        self.hosts[mac] = Host(mac, address)

    def offer(self, packet: Packet, now: float) -> Reply:
        """What it is offered after nobody answered the probe."""
        actions = self.it.receive(packet, now)
        if self.it.deadline is not None:
            actions += self.it.tick(self.it.deadline)
        (reply,), _, _ = split(actions)
        return reply

    def lease(self, chaddr: bytes, now: float) -> tuple[IPv4Address, SaveLease]:
        offer = self.offer(message(DISCOVER, chaddr=chaddr), now).packet
        request = message(REQUEST, selecting(address=offer.yiaddr), chaddr=chaddr)
        actions = self.it.receive(request, now + 1)
        (ack,), _, _ = split(actions)
        assert ack.packet.options[53] == ACK
        (saved,) = [each for each in actions if isinstance(each, SaveLease)]
        return ack.packet.yiaddr, saved


def test_a_stranger_gets_an_address_once_nobody_answers_for_it() -> None:
    it = PoolBench().it
    assert it.probes
    assert it.deadline is None
    assert it.receive(loader(DISCOVER, chaddr=STRANGER), 100.0) == [Probe(POOL[0])]
    assert it.deadline == 100.0 + PROBE_TIME
    assert it.tick(100.1) == []
    (offer,), _, (heard,) = split(it.tick(100.0 + PROBE_TIME))
    assert it.deadline is None
    assert (offer.packet.yiaddr, offer.mac) == (POOL[0], "02:00:00:00:00:01")
    assert offer.packet.options[43] == PI_BOOT_MENU
    assert (heard.name, heard.report.stage) == ("pi-000001", Stage.DISCOVER)
    assert it.host_of_lease(POOL[0]) == Host("02:00:00:00:00:01", POOL[0], "pi-000001")
    assert it.host_of_lease(POOL[1]) is None
    # The next program of the same board is not probed for again.
    (offer,), _, _ = split(it.receive(message(DISCOVER, {55: (12,)}, chaddr=STRANGER), 101.0))
    assert (offer.packet.yiaddr, offer.packet.options[12]) == (POOL[0], "pi-000001")


def test_a_lease_of_the_pool_is_remembered_over_a_restart() -> None:
    bench = PoolBench()
    address, saved = bench.lease(STRANGER, 100.0)
    assert saved == SaveLease("02:00:00:00:00:01", POOL[0], 1000.0 + 101.0 + 600)
    bench.lease(SECOND, 100.0)
    known = [(saved.mac, address, saved.expires), ("02:00:00:00:00:03", POOL[0], 5.0), (MAC, ELSEWHERE, 9e9)]
    again = PoolBench(leases=known)
    assert again.it.host_of_lease(POOL[0]) == Host("02:00:00:00:00:01", POOL[0], "pi-000001")  # the later one
    again = PoolBench(leases=known[:1])
    assert again.it.host_of_lease(POOL[0]) is not None
    # It renews before it ever asks anew.
    renewal = message(REQUEST, chaddr=STRANGER, ciaddr=POOL[0])
    (ack,), _, _ = split(again.it.receive(renewal, 1.0))
    assert (ack.packet.options[53], ack.address) == (ACK, POOL[0])


def test_an_ended_lease_goes_to_the_next_when_there_is_no_other() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    bench.lease(SECOND, 200.0)
    actions = bench.it.receive(message(DISCOVER, chaddr=THIRD), 300.0)
    _, (ignore,), (warning,) = split(actions)
    assert ignore.reason == "the pool is empty"
    assert (warning.report.mac, warning.report.severity) == ("", Severity.WARNING)
    assert "make `pool:` larger" in warning.report.event
    assert split(bench.it.receive(message(DISCOVER, chaddr=THIRD), 301.0))[2] == []
    assert bench.it.receive(message(DISCOVER, chaddr=THIRD), 800.0) == [
        ForgetLease("02:00:00:00:00:01"),
        Probe(POOL[0]),
    ]
    assert bench.it.receive(message(REQUEST, {50: POOL[0]}, chaddr=STRANGER), 801.0) == [Ignore("unknown MAC")]


def test_somebody_answers_for_the_address() -> None:
    it = PoolBench().it
    it.receive(message(DISCOVER, chaddr=STRANGER), 100.0)
    assert it.claimed(POOL[1], MAC, 100.1) == []
    forget, warning, probe = it.claimed(POOL[0], MAC, 100.2)
    assert (forget, probe) == (ForgetLease("02:00:00:00:00:01"), Probe(POOL[1]))
    assert isinstance(warning, Notice)
    assert f"{MAC} uses 172.30.4.100" in warning.report.event
    assert it.deadline == 100.2 + PROBE_TIME
    (offer,), _, _ = split(it.tick(101.0))
    assert offer.packet.yiaddr == POOL[1]
    assert it.host_of_lease(POOL[0]) is None


def test_the_client_itself_answers_for_the_address() -> None:
    it = PoolBench().it
    it.receive(message(DISCOVER, chaddr=STRANGER), 100.0)
    (offer,), _, _ = split(it.claimed(POOL[0], "02:00:00:00:00:01", 100.1))
    assert offer.packet.yiaddr == POOL[0]
    assert it.deadline is None


def test_a_second_discover_during_the_probe_is_the_one_that_is_answered() -> None:
    it = PoolBench().it
    it.receive(message(DISCOVER, chaddr=STRANGER), 100.0)
    assert it.receive(message(DISCOVER, chaddr=STRANGER, xid=9), 100.1) == [Ignore("its address is being probed")]
    (offer,), _, _ = split(it.tick(101.0))
    assert offer.packet.xid == 9


def test_the_boot_rom_waits_no_longer_for_the_probe_and_has_what_it_is_offered() -> None:
    bench = PoolBench()
    bench.it.receive(boot_rom(chaddr=STRANGER), 100.0)
    actions = bench.it.tick(101.0)
    (offer,), _, _ = split(actions)
    assert (offer.not_before, offer.neighbour) == (100.0 + BOOT_ROM_DELAY, True)
    assert SaveLease("02:00:00:00:00:01", POOL[0], 1000 + 101 + 600) in actions


def test_a_decline_of_a_pool_address_puts_it_aside() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    actions = bench.it.receive(message(DECLINE, selecting(address=POOL[0]), chaddr=STRANGER), 110.0)
    assert ForgetLease("02:00:00:00:00:01") in actions
    assert "declined 172.30.4.100" in split(actions)[2][0].report.event
    assert bench.lease(STRANGER, 120.0)[0] == POOL[1]
    elsewhere = message(DECLINE, selecting(address=ADDRESS), chaddr=STRANGER)
    assert not [each for each in bench.it.receive(elsewhere, 130.0) if isinstance(each, ForgetLease)]


def test_a_release_keeps_the_address_for_its_mac_until_it_is_needed() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    bench.lease(SECOND, 100.0)
    release = message(RELEASE, {54: SERVER}, ciaddr=POOL[1], chaddr=SECOND)
    assert SaveLease("02:00:00:00:00:02", POOL[1], 1150.0) in bench.it.receive(release, 150.0)
    assert bench.lease(SECOND, 160.0)[0] == POOL[1]
    bench.it.receive(release, 170.0)
    assert bench.lease(THIRD, 180.0)[0] == POOL[1]


def test_a_pi_of_the_pool_that_is_written_into_hosts_csv() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    bench.write("02:00:00:00:00:01", ADDRESS)
    actions = bench.it.receive(message(REQUEST, {50: POOL[0]}, chaddr=STRANGER), 200.0)
    assert ForgetLease("02:00:00:00:00:01") in actions
    assert split(actions)[0][0].packet.options[53] == NAK
    assert bench.it.host_of_lease(POOL[0]) is None
    assert bench.offer(message(DISCOVER, chaddr=STRANGER), 201.0).packet.yiaddr == ADDRESS


def test_an_address_of_the_pool_that_hosts_csv_gives_to_another() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    bench.write(MAC, POOL[0])
    (nak,), _, _ = split(bench.it.receive(message(REQUEST, ciaddr=POOL[0], chaddr=STRANGER), 200.0))
    assert nak.packet.options[56] == "hosts.csv gives that to another"
    assert bench.offer(message(DISCOVER), 201.0).packet.yiaddr == POOL[0]
    assert bench.lease(STRANGER, 202.0)[0] == POOL[1]


@pytest.mark.parametrize("reserved", [POOL[0], SERVER])
def test_what_the_pool_never_gives(reserved: IPv4Address) -> None:
    options = replace(POOLED, pool=(SERVER, SERVER) if reserved == SERVER else POOL, reserved=frozenset({POOL[0]}))
    actions = PoolBench(options).it.receive(message(DISCOVER, chaddr=STRANGER), 1.0)
    assert actions[0] == (Ignore("the pool is empty") if reserved == SERVER else Probe(POOL[1]))


@pytest.mark.parametrize("options", [{50: POOL[0]}, selecting(address=POOL[0]), {}])
def test_a_stranger_without_a_lease_is_met_with_silence(options: dict[int, Value]) -> None:
    assert PoolBench().it.receive(message(REQUEST, options, chaddr=STRANGER), 1.0) == [Ignore("unknown MAC")]


def test_a_pc_in_the_pool_gets_no_boot_menu() -> None:
    pc = loader(DISCOVER, {97: bytes(range(17))}, chaddr=STRANGER)
    assert 43 not in PoolBench().offer(pc, 1.0).packet.options


def test_a_pi_of_the_pool_that_a_human_gives_the_address_it_has() -> None:
    bench = PoolBench()
    bench.lease(STRANGER, 100.0)
    bench.write("02:00:00:00:00:01", POOL[0])
    (ack,), _, _ = split(bench.it.receive(message(REQUEST, ciaddr=POOL[0], chaddr=STRANGER), 200.0))
    assert ack.packet.options[53] == ACK
    assert bench.it.host_of_lease(POOL[0]) is None
    assert bench.lease(SECOND, 900.0)[0] == POOL[1]


pool_addresses = st.sampled_from([NO_ADDRESS, *POOL, SERVER, ADDRESS])
pool_message = st.builds(
    lambda kind, who, options, ciaddr, far: replace(
        message(kind, options, chaddr=bytes((2, 0, 0, 0, 0, who)), ciaddr=ciaddr),
        giaddr=IPv4Address("10.2.0.254") if far else NO_ADDRESS,
    ),
    st.sampled_from([DISCOVER, DISCOVER, REQUEST, DECLINE, RELEASE, INFORM]),
    st.integers(1, 4),
    st.fixed_dictionaries({}, optional={50: pool_addresses, 54: st.just(SERVER), 60: st.just(LOADER)}),
    pool_addresses,
    st.sampled_from([False, False, False, True]),
)
edit = st.tuples(st.integers(1, 4), st.sampled_from([None, *POOL, ADDRESS]))
arp = st.tuples(st.sampled_from(POOL), st.sampled_from([MAC, "02:00:00:00:00:01"]))


def happen(
    bench: PoolBench, what: Packet | tuple[int, IPv4Address | None] | tuple[IPv4Address, str], now: float
) -> list[Action]:
    """A message, an ARP packet, or a human's edit of hosts.csv."""
    match what:
        case Packet():
            return bench.it.receive(what, now)
        case (IPv4Address() as address, str() as mac):
            return bench.it.claimed(address, mac, now)
        case (int() as who, None):
            bench.hosts.pop(f"02:00:00:00:00:{who:02x}", None)
        case (int() as who, IPv4Address() as address) if bench.by_address(address) is None:
            bench.write(f"02:00:00:00:00:{who:02x}", address)
    return []


@given(st.lists(st.tuples(pool_message | edit | arp, st.sampled_from([0.0, 0.2, 5.0, 70.0, 700.0])), max_size=40))
@settings(max_examples=300)
def test_no_address_of_the_pool_is_given_twice_whatever_comes(
    happened: list[tuple[Packet | tuple[int, IPv4Address | None] | tuple[IPv4Address, str], float]],
) -> None:
    far = replace(FAR, pool=(FAR_ADDRESS, FAR_ADDRESS))
    bench, now, kept = PoolBench(replace(POOLED, subnets=(far,))), 0.0, dict[str, SaveLease]()
    for what, pause in happened:
        now += pause
        for action in bench.it.tick(now) + happen(bench, what, now):
            match action:
                case SaveLease(mac, address):
                    others = [each for each in kept.values() if each.address == address and each.mac != mac]
                    assert not [each for each in others if each.expires > now + 1000]
                    kept[mac] = action
                    assert bench.it.host_of_lease(address) == Host(mac, address, "pi-" + mac.replace(":", "")[-6:])
                case ForgetLease(mac):
                    kept.pop(mac, None)
                case Reply(packet):
                    parse(packet.encode())


# --- relays ---

FAR = Subnet(IPv4Network("10.2.0.0/24"), 300, IPv4Address("10.2.0.254"), domain="far.example")
NEAR_RELAY, FAR_RELAY = IPv4Address("172.30.4.250"), IPv4Address("10.2.0.254")
FAR_ADDRESS = IPv4Address("10.2.0.13")
RELAYED = replace(SETTINGS, subnets=(FAR,))
CIRCUIT = b"\x01\x04port"


def relayed(packet: Packet, giaddr: IPv4Address = FAR_RELAY, agent: bytes = CIRCUIT) -> Packet:
    return replace(packet, giaddr=giaddr, hops=1, options={**packet.options, 82: agent})


def far_policy(address: IPv4Address = FAR_ADDRESS) -> DhcpPolicy:
    return policy(RELAYED, Host(MAC, address, "pi3"))


def test_an_offer_goes_back_to_the_relay() -> None:
    (reply,), _, _ = split(far_policy().receive(relayed(loader(DISCOVER)), 1.0))
    assert (reply.address, reply.mac, reply.port, reply.neighbour) == (FAR_RELAY, "", 67, False)
    packet = reply.packet
    assert (packet.giaddr, packet.yiaddr, packet.siaddr) == (FAR_RELAY, FAR_ADDRESS, SERVER)
    assert (packet.options[3], packet.options[51]) == ((FAR_RELAY,), 300)
    assert packet.options[66] == str(SERVER)
    assert list(packet.options.items())[-1] == (82, CIRCUIT)


def test_a_renewal_comes_past_the_relay_and_is_answered_so() -> None:
    (reply,), _, _ = split(far_policy().receive(message(REQUEST, ciaddr=FAR_ADDRESS), 1.0))
    assert (reply.address, reply.mac, reply.port) == (FAR_ADDRESS, "", 68)
    assert (reply.packet.options[53], reply.packet.options[51]) == (ACK, 300)
    (nak,), _, _ = split(far_policy().receive(message(REQUEST, ciaddr=IPv4Address("10.2.0.14")), 1.0))
    assert (nak.address, nak.mac, nak.packet.options[53]) == (IPv4Address("10.2.0.14"), "", NAK)


def test_a_nak_by_relay_is_to_be_sent_to_all() -> None:
    (nak,), _, _ = split(far_policy().receive(relayed(message(REQUEST, {50: TAKEN})), 1.0))
    assert (nak.address, nak.port, nak.packet.flags) == (FAR_RELAY, 67, 0x8000)
    assert list(nak.packet.options.items())[-1] == (82, CIRCUIT)
    assert nak.packet.options[56] == "it is on 10.2.0.0/24"


def test_the_relay_selects_another_link_and_has_renewals_sent_to_itself() -> None:
    agent = CIRCUIT + b"\x05\x04" + FAR_RELAY.packed + b"\x0b\x04" + NEAR_RELAY.packed
    (offer,), _, _ = split(far_policy().receive(relayed(message(DISCOVER), NEAR_RELAY, agent), 1.0))
    assert (offer.address, offer.packet.yiaddr) == (NEAR_RELAY, FAR_ADDRESS)
    assert offer.packet.options[54] == NEAR_RELAY
    request = relayed(message(REQUEST, {54: NEAR_RELAY, 50: FAR_ADDRESS}), NEAR_RELAY, agent)
    (ack,), _, _ = split(far_policy().receive(request, 2.0))
    assert (ack.packet.options[53], ack.packet.options[54]) == (ACK, NEAR_RELAY)


def test_a_pi_on_a_network_that_is_not_its_own() -> None:
    it = far_policy(ADDRESS)
    _, (ignore,), (warning,) = split(it.receive(relayed(message(DISCOVER)), 1.0))
    assert ignore.reason == "its address is of another network"
    assert "asks on 10.2.0.0/24, where its address 172.30.4.13 is of no use" in warning.report.event
    (nak,), _, _ = split(it.receive(relayed(message(REQUEST, {50: ADDRESS})), 1.0))
    assert nak.packet.options[53] == NAK


def test_a_relay_of_a_network_that_is_not_known_is_told_of_once_an_hour() -> None:
    it = far_policy()
    told = []
    for now in (0.0, 3599.0, 3600.0):
        _, _, notices = split(it.receive(relayed(message(DISCOVER), ELSEWHERE), now))
        told.append(len(notices))
    assert told == [1, 0, 1]


def test_the_memory_of_the_network_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp.clients, "MAX_TOPICS", 2)
    it = far_policy()
    told = []
    for last in (1, 2, 3, 3, 1):
        _, _, notices = split(it.receive(relayed(message(DISCOVER), IPv4Address(f"10.9.0.{last}")), 1.0))
        told.append(len(notices))
    assert told == [1, 1, 1, 0, 1]


def test_a_3b_behind_a_relay_is_told_of() -> None:
    it = far_policy()
    (offer,), _, notices = split(it.receive(relayed(boot_rom()), 1.0))
    assert offer.not_before == 1.0 + BOOT_ROM_DELAY
    assert ["cannot boot through a DHCP relay" in each.report.event for each in notices] == [False, True]
    assert notices[1].report.severity is Severity.WARNING


def test_the_pool_of_a_far_network_is_not_probed() -> None:
    far = replace(FAR, pool=(FAR_ADDRESS, FAR_ADDRESS))
    bench = PoolBench(replace(POOLED, subnets=(far,)))
    bench.lease(STRANGER, 1.0)
    # The same Pi is carried to the other rack.
    actions = bench.it.receive(relayed(message(DISCOVER, chaddr=STRANGER)), 10.0)
    assert actions[0] == ForgetLease("02:00:00:00:00:01")
    (offer,), _, _ = split(actions)
    assert (offer.packet.yiaddr, offer.packet.options[51]) == (FAR_ADDRESS, 300)


def test_an_agents_option_that_is_too_long_is_left_out() -> None:
    (offer,), _, _ = split(far_policy().receive(relayed(message(DISCOVER), agent=bytes(256)), 1.0))
    assert 82 not in offer.packet.options
    (offer,), _, _ = split(far_policy().receive(relayed(message(DISCOVER, {61: bytes(255)}), agent=bytes(255)), 1.0))
    assert {53, 54, 51, 1, 82} <= set(offer.packet.options)
    assert len(offer.packet.encode()) <= 548


# --- another DHCP server ---

ROGUE = "02:00:00:00:00:09"


def said(kind: int, server: IPv4Address | None = FOREIGN, **fields: object) -> Packet:
    return message(kind, {} if server is None else {54: server}, op=2, yiaddr=ELSEWHERE, **fields)


def test_a_foreign_offer_to_our_pi_is_told_of_the_pi_and_of_the_network() -> None:
    it = policy()
    replies, ignored, (network, pi) = split(it.overheard(said(OFFER), FOREIGN, ROGUE, 0.0))
    assert not replies
    assert not ignored
    assert network.report == Report(
        "", event=f"another DHCP server, 172.30.4.9 ({ROGUE}), answers on this network", severity=Severity.WARNING
    )
    assert (pi.name, pi.report.mac, pi.report.severity) == ("pi3", MAC, Severity.WARNING)
    assert pi.report.event == f"another DHCP server, 172.30.4.9 ({ROGUE}), offered it 10.0.0.7"
    _, _, (pi,) = split(it.overheard(said(ACK, server=None), FOREIGN, ROGUE, 61.0))
    assert pi.report.event.endswith("gave it 10.0.0.7")
    _, _, (network, _) = split(it.overheard(said(ACK), FOREIGN, ROGUE, 3600.0))
    assert network.report.mac == ""


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (said(OFFER, chaddr=STRANGER), 1),
        (said(NAK), 1),
        (said(OFFER, server=SERVER), 0),
        (said(DISCOVER), 0),
    ],
)
def test_what_else_is_overheard(packet: Packet, count: int) -> None:
    assert len(policy().overheard(packet, FOREIGN, ROGUE, 0.0)) == count


# --- one Pi from power to login ---


def test_every_program_of_one_pi_has_one_address_whatever_it_calls_itself() -> None:
    it = policy()
    programs: list[dict[int, Value]] = [
        {60: LOADER, 97: GUID},
        {55: (1, 3, 6, 12, 15, 17, 26, 40)},
        {60: "piman-installer", 61: b"\1" + bytes.fromhex("b827eb010203")},
        {60: "dhcpcd-9.4.1", 61: b"\xff\x00\x00\x00\x01\x00\x01\x02\x03"},
    ]
    for number, options in enumerate(programs):
        (offer,), _, _ = split(it.receive(message(DISCOVER, options, xid=number), 10.0 * number))
        assert offer.packet.yiaddr == ADDRESS
        assert offer.packet.raw(61) == options.get(61, b"")
        assert (43 in offer.packet.options) is (number == 0)


# --- any message ---

addresses = st.sampled_from([NO_ADDRESS, ADDRESS, SERVER, TAKEN, ELSEWHERE, FOREIGN])
any_message = st.builds(
    lambda kind, options, **fields: replace(message(kind, options), **fields),
    kind=st.integers(0, 10),
    options=st.fixed_dictionaries(
        {},
        optional={
            50: addresses,
            54: addresses,
            55: st.lists(st.integers(0, 255)).map(tuple),
            57: st.integers(0, 65535),
            60: st.sampled_from([LOADER, "PXEClient:Arch:00007", "piman-installer", "x"]) | st.text(max_size=20),
            61: st.binary(max_size=300),
            97: st.sampled_from([GUID, BOOT_ROM_GUID]) | st.binary(max_size=300),
        },
    ),
    xid=st.sampled_from([BOOT_ROM_XID, 1]),
    flags=st.sampled_from([0, 0x8000, 0xFFFF]),
    ciaddr=addresses,
    giaddr=st.sampled_from([NO_ADDRESS, NO_ADDRESS, FOREIGN]),
    chaddr=st.sampled_from([bytes.fromhex("b827eb010203"), STRANGER]),
)


@given(st.lists(st.tuples(any_message, st.floats(0, 3)), max_size=6))
@settings(max_examples=300)
def test_whatever_comes(messages: list[tuple[Packet, float]]) -> None:
    it, now = policy(FULL), 0.0
    for packet, pause in messages:
        now += pause
        replies, refusals, _ = split(it.receive(packet, now))
        assert len(replies) + len(refusals) <= 1
        for reply in replies:
            assert len(reply.packet.encode()) <= 1472
            assert packet.mac == MAC
            assert reply.packet.yiaddr in (ADDRESS, NO_ADDRESS)
            assert (reply.packet.xid, reply.packet.chaddr, reply.packet.op) == (packet.xid, packet.chaddr, 2)
            assert reply.mac in ("", MAC, BROADCAST_MAC)
