"""dhcp/proxy.py: what a Pi is told beside another DHCP server, and how its address is learnt."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp.frames import BROADCAST_MAC
from dhcp.packet import NO_ADDRESS, Packet, Value, parse
from dhcp.proxy import ProxyPolicy
from dhcp.replies import BROADCAST, PI_BOOT_MENU, Action, Ignore, Notice, Pin, Unpin
from tests.test_dhcp_policy import (
    ACK,
    BOOT_ROM_DELAY,
    DECLINE,
    DISCOVER,
    GUID,
    HOST,
    INFORM,
    LOADER,
    MAC,
    NAK,
    OFFER,
    PI4_FACTS,
    RELEASE,
    REQUEST,
    SERVER,
    SETTINGS,
    STRANGER,
    boot_rom,
    loader,
    message,
    split,
)
from utility.hosts import Host
from utility.service import Stage

ROUTER = IPv4Address("172.30.4.254")
ROUTER_MAC = "02:00:00:00:00:fe"
THERE, ELSEWHERE = IPv4Address("172.30.4.77"), IPv4Address("172.30.4.78")
OTHER = Host("02:00:00:00:00:05", IPv4Address("172.30.4.15"), "pi5")
LEFT = Ignore("left to the other DHCP server")


def proxy(**changes: object) -> ProxyPolicy:
    hosts = {MAC: HOST, OTHER.mac: OTHER}
    return ProxyPolicy(replace(SETTINGS, **changes), hosts.get)  # type: ignore[arg-type]


def taken(**fields: object) -> Packet:
    return loader(REQUEST, {54: ROUTER, 50: THERE}, **fields)


def given_to(kind: int, address: IPv4Address = THERE, **fields: object) -> Packet:
    return message(kind, {54: ROUTER}, op=2, yiaddr=address, **fields)


def test_the_offer_names_the_boot_server_and_no_address() -> None:
    (reply,), _, (heard,) = split(proxy().receive(loader(DISCOVER), 1.0))
    assert parse(reply.packet.encode()) == reply.packet
    assert reply.packet == Packet(
        op=2,
        xid=0x01020304,
        chaddr=bytes.fromhex("b827eb010203"),
        siaddr=SERVER,
        options={53: OFFER, 54: SERVER, 60: "PXEClient", 43: PI_BOOT_MENU, 66: str(SERVER), 97: GUID},
    )
    assert (reply.address, reply.mac, reply.port, reply.not_before) == (BROADCAST, MAC, 68, 0.0)
    assert (heard.report.stage, heard.report.facts) == (Stage.DISCOVER, PI4_FACTS)
    assert heard.report.event == "the boot loader of a Pi 4 asks for an address"
    assert reply.notice is not None
    assert reply.notice.report.sent == "DHCPOFFER without an address"


def test_the_boot_rom_is_offered_late_and_once() -> None:
    it = proxy()
    (reply,), _, _ = split(it.receive(boot_rom(flags=0x8000), 100.0))
    assert (reply.not_before, reply.mac, reply.neighbour) == (100.0 + BOOT_ROM_DELAY, BROADCAST_MAC, False)
    assert split(it.receive(boot_rom(), 101.0))[1] == [Ignore("its delayed offer is on the way")]
    (reply,), _, _ = split(proxy(reply_delay=3.0).receive(loader(DISCOVER), 100.0))
    assert reply.not_before == 103.0


@pytest.mark.parametrize(
    "packet",
    [
        message(DISCOVER),
        message(DISCOVER, {60: "PXEClient:Arch:00007"}),
        message(DISCOVER, {60: "piman-installer"}),
        loader(DISCOVER, giaddr=ROUTER),
        message(REQUEST, {54: SERVER}),
        message(DECLINE),
        message(RELEASE),
        message(INFORM, ciaddr=THERE),
    ],
)
def test_everything_else_is_left_to_the_other_server(packet: Packet) -> None:
    replies, ignored, _ = split(proxy().receive(packet, 1.0))
    assert not replies
    assert ignored == [LEFT]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (replace(loader(DISCOVER), op=2), "no message of a client"),
        (loader(99), "no message of a client"),
        (loader(DISCOVER, htype=6), "not Ethernet"),
        (loader(DISCOVER, chaddr=STRANGER), "unknown MAC"),
    ],
)
def test_nothing_is_said(packet: Packet, reason: str) -> None:
    replies, (ignore,), _ = split(proxy().receive(packet, 1.0))
    assert not replies
    assert ignore.reason == reason


def test_an_unknown_pi_waits_for_approval_here_too() -> None:
    assert split(proxy(unknown_pis="approve").receive(loader(DISCOVER, chaddr=STRANGER), 1.0))[1] == [
        Ignore("waits for approval")
    ]


# --- where it is ---


def told(actions: list[Action]) -> tuple[Stage | None, str]:
    (notice,) = [each for each in actions if isinstance(each, Notice)]
    return notice.report.stage, notice.report.event


def test_the_address_is_learnt_from_the_request() -> None:
    it = proxy()
    assert it.host_of_lease(THERE) is None
    it.receive(loader(DISCOVER), 1.0)
    ignore, notice = it.receive(message(REQUEST, {54: ROUTER, 50: THERE}), 2.0)
    assert ignore == LEFT
    assert isinstance(notice, Notice)
    assert notice.report.heard == f"DHCPREQUEST {THERE} to {ROUTER}"
    assert (notice.report.stage, notice.report.facts) == (Stage.LEASE, {"address": str(THERE), **PI4_FACTS})
    assert notice.report.event == f"the boot loader of a Pi 4 has {THERE} from another DHCP server"
    assert it.host_of_lease(THERE) == replace(HOST, address=THERE)
    # The system it boots starts from the address it had.
    assert told(it.receive(message(REQUEST, {50: ELSEWHERE}), 60.0)) == (
        Stage.UP, f"the operating system has {ELSEWHERE} from another DHCP server"
    )  # fmt: skip
    assert (it.host_of_lease(THERE), it.host_of_lease(ELSEWHERE)) == (None, replace(HOST, address=ELSEWHERE))
    assert told(it.receive(message(REQUEST, {60: "piman-installer"}, ciaddr=THERE), 80.0))[0] is None


def test_the_address_of_the_boot_rom_is_learnt_from_the_offer_and_pinned() -> None:
    it = proxy()
    it.receive(boot_rom(), 1.0)
    pin, notice = it.overheard(given_to(OFFER), ROUTER, ROUTER_MAC, 1.1)
    assert pin == Pin(THERE, MAC)
    assert told([notice]) == (Stage.LEASE, f"the boot ROM of a Pi 3 has {THERE} from another DHCP server")
    assert it.claimed(THERE, MAC, 1.2) == []
    # bootcode.bin, which comes next, answers ARP.
    assert it.receive(loader(DISCOVER), 9.0)[0] == Unpin(THERE)
    it.receive(boot_rom(), 60.0)
    assert it.overheard(given_to(OFFER), ROUTER, ROUTER_MAC, 61.0)[0] == Pin(THERE, MAC)
    assert it.claimed(ELSEWHERE, MAC, 62.0)[:2] == [Unpin(THERE), Pin(ELSEWHERE, MAC)]


@pytest.mark.parametrize(
    ("reply", "learnt"),
    [
        (given_to(ACK), True),
        (given_to(OFFER), False),
        (given_to(NAK), False),
        (given_to(ACK, NO_ADDRESS), False),
        (given_to(ACK, chaddr=STRANGER), False),
    ],
)
def test_what_the_other_server_says_to_a_loader_that_will_send_a_request(reply: Packet, learnt: bool) -> None:
    it = proxy()
    it.receive(loader(DISCOVER), 1.0)
    assert bool(it.overheard(reply, ROUTER, ROUTER_MAC, 1.1)) is learnt
    assert (it.host_of_lease(THERE) is not None) is learnt


def test_the_address_is_learnt_from_arp_and_may_change_hands() -> None:
    it = proxy()
    it.receive(loader(DISCOVER), 1.0)
    assert told(it.claimed(THERE, MAC, 2.0))[0] is Stage.LEASE
    assert it.claimed(NO_ADDRESS, MAC, 2.0) == it.claimed(SERVER, MAC, 2.0) == []
    assert it.claimed(THERE, ROUTER_MAC, 2.0) == []
    assert told(it.claimed(THERE, OTHER.mac, 3.0))[0] is Stage.UP
    assert it.host_of_lease(THERE) == replace(OTHER, address=THERE)
    assert told(it.claimed(ELSEWHERE, MAC, 4.0)) == (Stage.LEASE, "")
    assert it.tick(5.0) == []


values: dict[int, st.SearchStrategy[Value]] = {
    50: st.sampled_from([THERE, ELSEWHERE, NO_ADDRESS]),
    54: st.sampled_from([SERVER, ROUTER]),
    60: st.sampled_from([LOADER, "piman-installer"]),
    97: st.sampled_from([GUID, b"\0" + b"\x44" * 16]),
}
packets = st.builds(
    lambda kind, options, chaddr, ciaddr: message(kind, options, chaddr=chaddr, ciaddr=ciaddr),
    st.integers(0, 9),
    st.fixed_dictionaries({}, optional=values),
    st.sampled_from([bytes.fromhex("b827eb010203"), bytes.fromhex("020000000005"), STRANGER]),
    st.sampled_from([THERE, NO_ADDRESS]),
)


@given(st.lists(st.tuples(packets, st.sampled_from(["ask", "say", "claim"]), st.floats(0, 9)), max_size=30))
def test_each_pi_is_at_one_address_and_each_address_is_one_pis(events: list[tuple[Packet, str, float]]) -> None:
    it, now = proxy(), 0.0
    pinned: set[IPv4Address] = set()
    for packet, what, pause in events:
        now += pause
        where = packet.address(50) or NO_ADDRESS
        if what == "ask":
            actions = it.receive(packet, now)
        elif what == "say":
            actions = it.overheard(replace(packet, yiaddr=where), ROUTER, ROUTER_MAC, now)
        else:
            actions = it.claimed(where, packet.mac, now)
        for action in actions:
            if isinstance(action, Pin):
                assert action.address not in pinned
                pinned.add(action.address)
            elif isinstance(action, Unpin):
                pinned.remove(action.address)
        found = [host for each in (THERE, ELSEWHERE) if (host := it.host_of_lease(each)) is not None]
        assert len({host.mac for host in found}) == len(found)
        assert all(it.host_of_lease(host.address) == host for host in found)
