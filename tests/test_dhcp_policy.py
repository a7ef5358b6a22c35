"""dhcp/policy.py: who is answered, with what, by which way, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dhcp.policy
from dhcp.packet import BOOT_ROM_GUID, NO_ADDRESS, Option, Packet, Value, parse
from dhcp.policy import (
    BOOT_ROM_DELAY,
    BOOT_ROM_XID,
    BROADCAST,
    BROADCAST_MAC,
    PI_BOOT_MENU,
    Action,
    DhcpPolicy,
    DhcpSettings,
    Ignore,
    Notice,
    Reply,
    Role,
    role_of,
)
from utility.hosts import Host
from utility.service import Severity, Stage

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
    monkeypatch.setattr(dhcp.policy, "MAX_CLIENTS", 2)
    it = DhcpPolicy(SETTINGS, lambda mac: Host(mac, ADDRESS))
    for last in (1, 2, 1, 3):
        it.receive(loader(DISCOVER, chaddr=bytes((2, 0, 0, 0, 0, last))), 1.0)
    for last, remembered in ((1, True), (3, True), (2, False)):
        (reply,), _, _ = split(it.receive(message(REQUEST, selecting(), chaddr=bytes((2, 0, 0, 0, 0, last))), 2.0))
        assert (43 in reply.packet.options) is remembered


@pytest.mark.parametrize(
    ("vendor_class", "role"),
    [
        (LOADER, Role.BOOT_LOADER),
        ("PXEClient:Arch:00007:UNDI:003016", Role.OTHER_PXE),
        ("PXEClient", Role.OTHER_PXE),
        ("piman-installer", Role.INSTALLER),
        ("udhcp 1.35.0", Role.SYSTEM),
        ("", Role.SYSTEM),
    ],
)
def test_role(vendor_class: str, role: Role) -> None:
    assert role_of(vendor_class) is role


def test_another_pxe_client_gets_an_address_and_no_pi_menu() -> None:
    it = policy()
    (offer,), _, (heard,) = split(it.receive(loader(DISCOVER, {60: "PXEClient:Arch:00007", 97: b"\0pc"}), 1.0))
    assert offer.packet.yiaddr == ADDRESS
    assert not {43, 60, 66} & set(offer.packet.options)
    assert offer.packet.options[97] == b"\0pc"
    assert heard.report.stage is Stage.DISCOVER
    assert "a PXE client that is no Pi" in heard.report.event


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
    "request_packet", [boot_rom(), boot_rom(xid=1), loader(DISCOVER, xid=BOOT_ROM_XID)], ids=["both", "guid", "xid"]
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


def test_a_boot_loader_with_that_xid_that_does_send_a_request_is_answered_at_once() -> None:
    reply = reply_to(loader(REQUEST, selecting(), xid=BOOT_ROM_XID))
    assert (reply.packet.options[53], reply.not_before, reply.neighbour) == (ACK, 0.0, True)


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
    assert reply.packet.options[53] == kind
    assert reply.packet.options[54] == SERVER
    assert reply.packet.options[61] == b"\1id"
    assert reply.notice is not None
    assert state in reply.notice.report.heard
    if kind == NAK:
        assert (reply.address, reply.mac) == (BROADCAST, BROADCAST_MAC)
        assert reply.packet.options == {53: NAK, 54: SERVER, 61: b"\1id", 56: "your address is 172.30.4.13"}
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
    text = "the operating system asked for 172.30.4.77, its address is 172.30.4.13"
    assert events == [text, "", text]


def test_a_client_that_took_another_servers_offer() -> None:
    it = policy()
    replies, (ignore,), (notice,) = split(it.receive(loader(REQUEST, selecting(server=FOREIGN)), 1.0))
    assert not replies
    assert ignore.reason == "took another server's offer"
    assert notice.report.severity is Severity.WARNING
    assert "another DHCP server, 172.30.4.9" in notice.report.event
    _, _, (again,) = split(it.receive(loader(REQUEST, selecting(server=TAKEN)), 60.0))
    assert (again.report.event, again.report.severity) == ("", Severity.INFO)
    _, _, (later,) = split(it.receive(loader(REQUEST, selecting(server=TAKEN)), 61.0))
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
        (message(DISCOVER, giaddr=FOREIGN), "relayed"),
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
    assert '"?[2J??' + "x" * 58 + '"' in notice.report.event
    _, _, (silent,) = split(policy().receive(message(DISCOVER, chaddr=STRANGER), 1.0))
    assert silent.report.event == "asks for an address, but is not in hosts.csv"


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
