"""dhcp/prepared.py: what is answered by recognition is byte for byte what the rules answer, and told the same."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dhcp.prepared
import dhcp.server
from dhcp.boards import BOOT_ROM_GUID, BOOT_ROM_XID
from dhcp.frames import BROADCAST_MAC, Frame, parse_frame
from dhcp.packet import NO_ADDRESS, Packet, PacketError, Value, parse
from dhcp.policy import DhcpPolicy
from dhcp.prepared import Answered, Prepared
from dhcp.replies import BROADCAST, DhcpSettings, Reply
from dhcp.server import DhcpServer
from monitoring.fleet import Fleet
from monitoring.store import Store
from utility.hosts import Host
from utility.service import Report

SERVER = IPv4Address("127.0.0.1")
SETTINGS = DhcpSettings(SERVER, IPv4Network("127.0.0.0/24"), router=SERVER, dns=(SERVER,), domain="rack.example")
OURS = "02:00:00:00:00:01"
LOADER = "PXEClient:Arch:00000:UNDI:002001"
PI_LIST = (1, 3, 43, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135)
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)


def mac_of(number: int) -> str:
    return f"b8:27:eb:00:00:{number:02x}"


def chaddr_of(number: int) -> bytes:
    return bytes.fromhex(mac_of(number).replace(":", ""))


def host_of(number: int, name: str | None = None) -> Host:
    return Host(mac_of(number), SERVER + 10 + number, f"pi{number}" if name is None else name)


HOSTS = {mac_of(number): host_of(number) for number in range(1, 12)}
HOSTS[mac_of(12)] = Host(mac_of(12), IPv4Address("10.9.9.9"), "elsewhere")


def eeprom(number: int, fourcc: bytes = b"4iPR", revision: int = 0xD03114) -> bytes:
    serial = (0x91CDF000 + number).to_bytes(4, "little")
    return b"\0" + fourcc + revision.to_bytes(4, "little") + chaddr_of(number)[2:] + serial


def serials(number: int) -> bytes:
    return b"\0" + (0xB66C4C00 + number).to_bytes(4, "little") * 4


def pxe(guid: bytes | None, codes: Sequence[int] = PI_LIST) -> dict[int, Value]:
    told: dict[int, Value] = {55: tuple(codes), 93: b"\0\0", 94: b"\1\2\1"}
    return told | ({} if guid is None else {97: guid}) | {60: LOADER}


def client_id(number: int) -> bytes:
    return b"\1" + chaddr_of(number)


# The programs of pi-netboot's list, and the systems that are booted: what each says beside its message type.
PROGRAMS: dict[str, Callable[[int], dict[int, Value]]] = {
    "3B": lambda _: pxe(BOOT_ROM_GUID),
    "3B+": lambda number: pxe(serials(number)),
    "4": lambda number: pxe(eeprom(number)),
    "4, other byte order": lambda number: pxe(eeprom(number, b"RPi4")),
    "5": lambda number: pxe(eeprom(number, b"5iPR", 0xC04170)),
    "4 before 2020": lambda number: pxe(serials(number)),
    "a loader without option 97": lambda _: pxe(None),
    "CM4": lambda number: pxe(eeprom(number, revision=0xA03140)),
    "kernel": lambda _: {60: "Linux ipconfig", 55: (1, 3, 6, 12, 15, 17, 26, 28, 40)},
    "installer": lambda _: {60: "piman-installer", 55: (1, 3, 6)},
    "udhcpc": lambda number: {61: client_id(number), 57: 576, 55: (1, 3, 6, 12, 15, 28, 42), 60: "udhcp 1.35.0"},
    "dhclient": lambda number: {12: f"raspberrypi{number}", 55: (1, 28, 2, 3, 15, 6, 12, 42), 50: SERVER + 9},
    "networkd": lambda number: {61: b"\xff" + client_id(number) * 2, 55: (1, 3, 12, 15, 6, 33), 57: 1472},
    "small": lambda _: {},
    "a PC": lambda _: {60: LOADER, 93: b"\0\0", 97: b"\0" + bytes(range(1, 17)), 55: (1, 3, 12)},
    "iPXE": lambda number: {60: LOADER, 93: b"\0\0", 77: b"iPXE", 175: b"\1\1\1", 61: client_id(number), 55: (1, 3)},
    "relayed": lambda _: {82: b"\1\1x", 55: (1, 3)},
}
ROM_PROGRAMS = frozenset({"3B", "3B+"})  # they have the constant xid


def message(number: int, program: str, kind: int, **fields: Any) -> Packet:  # noqa: ANN401
    """What a program of a client says. `options` of `fields` come before its own."""
    options: dict[int, Value] = {53: kind, **fields.pop("options", {})}
    said = {key: value for key, value in PROGRAMS[program](number).items() if key not in options}
    xid = BOOT_ROM_XID if program in ROM_PROGRAMS else 0x1000 + number
    values: dict[str, Any] = {"op": 1, "xid": xid, "chaddr": chaddr_of(number), "options": options | said, **fields}
    return Packet(**values)


def selecting(number: int, program: str, server: IPv4Address = SERVER, **fields: Any) -> Packet:  # noqa: ANN401
    options: dict[int, Value] = {50: host_of(number).address, 54: server}
    return message(number, program, REQUEST, options=options, **fields)


def frame_of(packet: Packet, source: IPv4Address = NO_ADDRESS) -> bytes:
    to = SERVER if packet.ciaddr != NO_ADDRESS else BROADCAST
    mac = packet.mac or mac_of(1)
    return Frame(mac, BROADCAST_MAC, source, to, 68, 67, packet.encode()).encode()


def encode(reply: Reply) -> bytes:
    return Frame(OURS, reply.mac, SERVER, reply.address, 67, reply.port, reply.packet.encode()).encode()


@dataclass
class Desk:
    """The rules and what was learnt from them, side by side."""

    hosts: dict[str, Host] = field(default_factory=lambda: dict(HOSTS))
    settings: DhcpSettings = SETTINGS

    def __post_init__(self) -> None:
        self.policy = DhcpPolicy(self.settings, self.hosts.get)
        self.prepared = Prepared(self.settings, self.policy.plain_host)

    def by_rules(self, frame: bytes, now: float = 0.0) -> list[bytes]:
        """Let the rules answer, and learn from it."""
        packet = parse(parse_frame(frame).payload)
        actions = self.policy.receive(packet, now)
        self.prepared.observe(frame, packet, actions, encode)
        return [encode(each) for each in actions if isinstance(each, Reply) and each.mac]

    def learn(self, *packets: Packet) -> None:
        for each in packets:
            self.by_rules(frame_of(each))

    def recognise(self, packet: Packet) -> bytes | None:
        found = self.prepared.answer(frame_of(packet), 0.0)
        return None if found is None else found.reply

    def check(self, packet: Packet) -> bool:
        """Whether it is recognised; and if so, that the rules say the same."""
        found = self.recognise(packet)
        said = self.by_rules(frame_of(packet))
        assert found is None or [found] == said
        return found is not None


# --- what is recognised ---

ELIGIBLE = [name for name in PROGRAMS if name not in ("3B", "relayed")]


@pytest.mark.parametrize("program", ELIGIBLE)
@pytest.mark.parametrize("flags", [0, 0x8000])
def test_another_board_of_the_same_kind_is_recognised(program: str, flags: int) -> None:
    desk = Desk()
    desk.learn(message(1, program, DISCOVER, flags=flags), selecting(1, program, flags=flags))
    for number in (1, 2, 3):
        assert desk.check(message(number, program, DISCOVER, flags=flags, secs=number))
        assert desk.check(selecting(number, program, flags=flags))
    assert not desk.recognise(message(2, program, DISCOVER, flags=flags ^ 0x8000))


@pytest.mark.parametrize("program", ["3B", "relayed"])
def test_what_needs_more_than_an_answer_is_never_recognised(program: str) -> None:
    desk = Desk()
    desk.learn(message(3, "4", DISCOVER), selecting(3, "4"))  # much the same
    for number in (1, 2, 1):
        assert not desk.check(message(number, program, DISCOVER))
        assert not desk.check(selecting(number, program))


def test_a_name_of_another_length_is_learnt_anew() -> None:
    desk = Desk()
    desk.learn(message(1, "udhcpc", DISCOVER), message(11, "udhcpc", DISCOVER))
    assert desk.check(message(2, "udhcpc", DISCOVER))
    assert desk.check(message(10, "udhcpc", DISCOVER))
    desk.hosts[mac_of(2)] = host_of(2, "another-name")
    assert not desk.check(message(2, "udhcpc", DISCOVER))
    assert desk.check(message(2, "udhcpc", DISCOVER))


def test_an_edit_of_hosts_counts_at_once() -> None:
    desk = Desk()
    desk.learn(*(message(number, "4", DISCOVER) for number in (1, 2)))
    assert desk.check(message(2, "4", DISCOVER))
    desk.hosts[mac_of(2)] = replace(host_of(2), last_seen=5)  # as each sign of life makes it
    assert desk.check(message(2, "4", DISCOVER))
    desk.hosts[mac_of(2)] = Host(mac_of(2), IPv4Address("127.0.0.12"), "pi" + "2")  # read again, as it was
    assert desk.check(message(2, "4", DISCOVER))
    desk.hosts[mac_of(2)] = replace(host_of(2), address=SERVER + 77)
    assert desk.check(message(2, "4", DISCOVER))
    assert not desk.check(selecting(2, "4"))  # its old address: refused
    del desk.hosts[mac_of(2)]
    assert not desk.check(message(2, "4", DISCOVER))


def test_a_request_is_known_by_the_discover_before_it() -> None:
    """EEPROMs of early 2020 leave out of the REQUEST what tells that they are Pis' (Clients.asker)."""
    desk = Desk()
    short: dict[int, Value] = {53: REQUEST, 50: host_of(1).address, 54: SERVER}
    asks = Packet(1, 7, chaddr_of(1), short)
    desk.learn(message(1, "4", DISCOVER), asks)
    other = replace(asks, chaddr=chaddr_of(2), options=short | {50: host_of(2).address})
    assert not desk.recognise(other)  # nobody knows what it is
    desk.learn(message(2, "small", DISCOVER))
    assert not desk.check(other)
    desk.learn(message(2, "4", DISCOVER))
    assert desk.check(other)
    assert parse(parse_frame(desk.recognise(other) or b"").payload).raw(97) == eeprom(2)


def test_who_was_last_answered_otherwise_is_barred() -> None:
    desk = Desk()
    desk.learn(message(1, "3B+", DISCOVER), message(2, "3B", DISCOVER))
    assert not desk.check(message(2, "3B+", DISCOVER))  # a delayed offer to that very xid is on its way
    desk.by_rules(frame_of(message(2, "3B+", DISCOVER)), now=10.0)
    found = desk.recognise(message(2, "3B+", DISCOVER))
    assert found is not None
    desk.by_rules(frame_of(selecting(2, "3B+", SERVER + 3)), now=10.0)
    assert desk.recognise(message(2, "3B+", DISCOVER)) is None


def test_an_edit_does_not_lift_the_bar() -> None:
    desk = Desk()
    desk.learn(message(1, "3B+", DISCOVER), message(2, "3B", DISCOVER))
    desk.hosts[mac_of(2)] = host_of(2, "px2")
    assert not desk.check(message(2, "3B+", DISCOVER))


def test_an_address_of_another_network_or_ours_is_left_to_the_rules() -> None:
    desk = Desk()
    desk.learn(message(1, "4", DISCOVER), message(12, "4", DISCOVER))
    assert not desk.check(message(12, "4", DISCOVER))
    desk.hosts[mac_of(2)] = replace(host_of(2), address=SERVER)
    assert not desk.check(message(2, "4", DISCOVER))


def test_a_damaged_frame_is_left_to_the_rules() -> None:
    desk = Desk()
    desk.learn(message(1, "4", DISCOVER))
    good = frame_of(message(2, "4", DISCOVER))
    for at in (25, 41, 48):  # checksums of IP and UDP, and what the latter protects
        bad = bytearray(good)
        bad[at] ^= 1
        assert desk.prepared.answer(bytes(bad), 0.0) is None
    bad = bytearray(good)
    bad[41] ^= 1
    assert desk.prepared.answer(bytes(bad), 0.0, checksum_ready=False) is not None
    bad[40:42] = b"\0\0"  # no checksum at all, as the loaders of a Pi 3
    assert desk.prepared.answer(bytes(bad), 0.0) is not None
    odd = message(1, "4", DISCOVER, options={12: "x" * 4})
    desk.learn(odd)
    assert desk.check(odd)


def test_odd_lengths() -> None:
    desk = Desk()
    for name in ("x" * 100, "x" * 101):
        packet = message(1, "udhcpc", DISCOVER, options={12: name})
        desk.learn(packet)
        assert desk.check(replace(packet, xid=99))


# --- what is not learnt ---


def test_what_cannot_be_laid_out_is_not_learnt() -> None:
    desk = Desk()
    twice = bytearray(message(1, "udhcpc", DISCOVER).encode())
    end = twice.index(b"udhcp 1.35.0") + 12
    for piece in (b"\x3d\x01a\xff", b"\x34\x01\x01\xff", b"\0\0\x52\x03\x01\x01x\xff"):
        raw = bytes(twice[:end]) + piece + bytes(40)
        frame = Frame(mac_of(1), BROADCAST_MAC, NO_ADDRESS, BROADCAST, 68, 67, raw).encode()
        desk.by_rules(frame)
        assert desk.prepared.answer(frame, 0.0) is None


@pytest.mark.parametrize("change", ["options of IP", "no magic", "short", "cut", "stranger"])
def test_what_the_rules_would_not_have_seen_is_not_learnt(change: str) -> None:
    """`observe` is told of what was read well; it does not rely on that."""
    desk = Desk()
    packet = message(1, "4", DISCOVER)
    frame = bytearray(frame_of(packet))
    actions = desk.policy.receive(packet, 0.0)
    match change:
        case "options of IP":
            frame[14] = 0x46
        case "no magic":
            frame[278] ^= 1
        case "short":
            frame[38:40] = b"\0\x20"
        case "cut":
            frame[38:40] = (248 + 4).to_bytes(2, "big")  # in the middle of an option
        case _:
            frame[70] ^= 2
    desk.prepared.observe(bytes(frame), packet, actions, encode)
    assert desk.prepared.answer(bytes(frame), 0.0) is None


def test_an_answer_that_cannot_be_filled_in_again_is_not_learnt() -> None:
    desk = Desk()
    packet = message(1, "4", DISCOVER)
    frame = frame_of(packet)
    actions = desk.policy.receive(packet, 0.0)

    def refuse(_: Reply) -> bytes:
        raise PacketError("no bytes")

    desk.prepared.observe(frame, packet, actions, refuse)
    assert desk.prepared.answer(frame, 0.0) is None
    desk.prepared.observe(frame, packet, actions, lambda reply: encode(reply) + b"\0")
    assert desk.prepared.answer(frame, 0.0) is None
    wrong = [each for each in actions if isinstance(each, Reply)]
    options = dict(wrong[0].packet.options) | {61: b"\1abc"}  # an identifier that nobody sent
    desk.prepared.observe(frame, packet, [replace(wrong[0], packet=replace(wrong[0].packet, options=options))], encode)
    assert desk.prepared.answer(frame, 0.0) is None
    desk.prepared.observe(frame, packet, actions, encode)
    assert desk.prepared.answer(frame, 0.0) is not None


def test_what_is_wrong_is_forgotten() -> None:
    desk = Desk()
    desk.learn(message(1, "4", DISCOVER))
    found = desk.prepared.answer(frame_of(message(2, "4", DISCOVER)), 0.0)
    assert isinstance(found, Answered)
    assert desk.prepared.forget(found.template)
    assert not desk.prepared.forget(found.template)
    assert not desk.recognise(message(2, "4", DISCOVER))


def test_the_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp.prepared, "MAX_LAYOUTS", 2)
    monkeypatch.setattr(dhcp.prepared, "MAX_SEATS", 3)
    desk = Desk()
    first: dict[int, Value] = {61: b"abcd", 12: "abc"}
    layouts: list[dict[int, Value]] = [
        first | {60: "x" * 8},
        {60: "x" * 8} | first,
        {12: "abc", 60: "x" * 8, 61: b"abcd"},
    ]
    kind: dict[int, Value] = {53: DISCOVER}
    packets = [Packet(1, 1, chaddr_of(number), kind | each) for number, each in enumerate(layouts, 1)]
    desk.learn(*packets)
    assert [desk.recognise(each) is not None for each in packets] == [True, True, False]
    monkeypatch.setattr(dhcp.prepared, "MAX_TEMPLATES", 2)
    for number in range(1, 6):
        desk.learn(message(number, "small", DISCOVER, options={60: f"x{number}"}))
    assert not desk.recognise(replace(packets[0], chaddr=chaddr_of(5)))
    assert desk.recognise(message(5, "small", DISCOVER, options={60: "x5"}))
    assert len(desk.prepared._seats) <= 3
    for number in range(6, 12):
        desk.learn(message(number, "3B", DISCOVER))
    assert desk.prepared._seats.keys() >= {chaddr_of(number) for number in range(6, 12)}  # each may hear late


# --- any message of any client ---

SOMEBODY = st.integers(1, 12)
FLAGS = st.sampled_from([0, 0x8000])
CODES = st.lists(st.sampled_from([1, 3, 6, 12, 15, 28, 42, 43, 60, 66, 97, 121, 200]), max_size=14).map(tuple)


@st.composite
def any_options(draw: st.DrawFn) -> Callable[[int], dict[int, Value]]:
    """Options that one program says, and of them those that are each client's own."""
    fixed: dict[int, Value] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                55: CODES.filter(bool),
                57: st.integers(300, 1500),
                60: st.sampled_from([LOADER, "udhcp 1.35.0", "piman-installer", "Linux ipconfig", "U-Boot.armv8", ""]),
                77: st.sampled_from([b"iPXE", b"x"]),
                93: st.sampled_from([b"\0\0", b"\0\x0b", b"\0\x16"]),
                81: st.binary(max_size=20),
                200: st.binary(max_size=40),
            },
        )
    )
    own: dict[int, Callable[[int], Value]] = {
        12: lambda number: f"host{number:03}",
        50: lambda number: host_of(number).address,
        61: client_id,
        97: draw(st.sampled_from([eeprom, serials, lambda number: b"\0" + bytes([number]) * 15 + b"\1"])),
    }
    codes = draw(st.permutations([*fixed, *draw(st.sets(st.sampled_from(sorted(own))))]))

    def options(number: int) -> dict[int, Value]:
        return {code: fixed[code] if code in fixed else own[code](number) for code in codes}

    return options


@settings(max_examples=150)
@given(any_options(), any_options(), st.lists(st.tuples(SOMEBODY, FLAGS, st.integers(0, 2**32 - 1)), min_size=2))
def test_recognised_is_what_the_rules_say(
    discover: Callable[[int], dict[int, Value]],
    request: Callable[[int], dict[int, Value]],
    askers: list[tuple[int, int, int]],
) -> None:
    desk = Desk()
    for number, flags, xid in askers:
        kind: dict[int, Value] = {53: DISCOVER}
        desk.check(Packet(1, xid, chaddr_of(number), kind | discover(number), secs=xid % 65536, flags=flags))
        kind = {53: REQUEST, 54: SERVER, 50: host_of(number).address}
        desk.check(Packet(1, xid, chaddr_of(number), kind | request(number), flags=flags))


# --- two servers side by side, in virtual time ---


class Clock:
    """Stands in for the module `time` in dhcp.server."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1e9

    def thread_time(self) -> float:
        return 0.0


class Wire:
    """Stands in for a socket: what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def send_all(self, frames: list[bytes]) -> list[OSError]:
        self.sent += frames
        return []

    def sendmsg(self, data: list[bytes], *_: object) -> None:
        self.sent.append(data[0])


@dataclass
class Rig:
    """A server of which only the sockets and the clock are not real, with a board behind it."""

    clock: Clock
    server: DhcpServer
    fleet: Fleet
    store: Store
    wire: Wire
    hosts: dict[str, Host]
    edited_meanwhile: bool = False  # while messages were waiting to be written up

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server._tick()

    def finish(self) -> tuple[object, ...]:
        """What can be seen of it all: the board, each client's events."""
        self.server._write_up(len(self.server._backlog))
        self.fleet.flush(self.clock.time())
        events = [(each.mac, each.text, each.severity, round(each.when, 3)) for each in self.store.events(limit=9999)]
        rows = [dataclasses.replace(row, since=round(row.since, 3)) for row in self.fleet.snapshot()]
        rows = [
            dataclasses.replace(
                row,
                heard_at=round(row.heard_at, 3),
                sent_at=round(row.sent_at, 3),
                updated=round(row.updated, 3),
            )
            for row in rows
        ]
        return rows, sorted(events, key=lambda event: event[0])


@contextmanager
def rig(clock: Clock) -> Iterator[Rig]:
    hosts = dict(HOSTS)
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder) / "db")) as store:
        fleet = Fleet(store, hosts.get, clock.time)
        policy = DhcpPolicy(SETTINGS, hosts.get)

        def report(seen: Report, when: float | None = None) -> None:
            fleet.report(seen, when)

        server = DhcpServer("lo", policy, report, report_late=report)
        real = server._raw, server._udp
        wire = Wire()
        fake: Any = wire
        server._raw = server._udp = fake
        server._neighbour = lambda *_: True  # type: ignore[method-assign]
        try:
            yield Rig(clock, server, fleet, store, wire, hosts)
        finally:
            server._raw, server._udp = real
            server._pinned.clear()
            server.stop()
            server.run()


PROGRAM = st.sampled_from(sorted(PROGRAMS))
SAYS = st.sampled_from(["discover", "select", "foreign", "wrong", "reboot", "renew", "release", "decline", "inform"])
STEP = st.one_of(
    st.tuples(st.just("say"), st.lists(st.tuples(st.integers(1, 4), PROGRAM, SAYS, FLAGS), min_size=1, max_size=6)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.5, 2.0, 70.0])),
    st.tuples(st.just("write up"), st.integers(1, 9)),
    st.tuples(st.just("edit"), st.tuples(st.integers(1, 4), st.sampled_from(["name", "move", "remove", "back"]))),
)


def words(number: int, program: str, says: str, flags: int) -> Packet:
    mine = host_of(number).address
    table: dict[str, tuple[int, dict[int, Value], IPv4Address]] = {
        "discover": (DISCOVER, {}, NO_ADDRESS),
        "select": (REQUEST, {50: mine, 54: SERVER}, NO_ADDRESS),
        "foreign": (REQUEST, {50: mine, 54: SERVER + 5}, NO_ADDRESS),
        "wrong": (REQUEST, {50: SERVER + 99, 54: SERVER}, NO_ADDRESS),
        "reboot": (REQUEST, {50: mine}, NO_ADDRESS),
        "renew": (REQUEST, {}, mine),
        "release": (RELEASE, {54: SERVER}, mine),
        "decline": (DECLINE, {54: SERVER, 50: mine}, NO_ADDRESS),
        "inform": (INFORM, {}, mine),
    }
    kind, options, ciaddr = table[says]
    return message(number, program, kind, options=options, ciaddr=ciaddr, flags=flags)


def edit(hosts: dict[str, Host], number: int, how: str) -> None:
    host = hosts.get(mac_of(number)) or host_of(number)
    match how:
        case "name":
            hosts[host.mac] = replace(host, hostname=host.hostname + "x")
        case "move":
            hosts[host.mac] = replace(host, address=SERVER + 100 + number)
        case "remove":
            hosts.pop(host.mac, None)
        case _:
            hosts[host.mac] = host_of(number)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=25), crowded=st.lists(st.booleans(), min_size=25, max_size=25))
def test_nobody_can_tell_the_difference(steps: list[tuple[str, Any]], crowded: list[bool]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(dhcp.server, "time", clock)
        patch.setattr(dhcp.server, "CHECK_EACH", 2)
        seen = []
        for fast in (False, True):
            clock.now = 1000.0
            with rig(clock) as it:
                play(it, steps, crowded if fast else [False] * len(steps))
                seen.append((it.wire.sent, it.finish()))
                assert not it.server.counters["answered otherwise"]
        assert seen[0][0] == seen[1][0]
        # The board names a Pi as hosts.csv has it when it is told, which may then be a moment later.
        assert it.edited_meanwhile or seen[0][1] == seen[1][1]


@pytest.mark.parametrize("program", ["4", "3B+", "udhcpc"])
def test_a_crowd(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """All at once, then again, and one that must come after what it said before."""
    steps: list[tuple[str, Any]] = []
    for says in ("discover", "select", "discover", "select"):
        steps += [("say", [(number, program, says, 0) for number in range(1, 10)])]
    steps += [("say", [(3, program, "release", 0)]), ("wait", 70.0), *steps]
    clock = Clock()
    monkeypatch.setattr(dhcp.server, "time", clock)
    seen = []
    for fast in (False, True):
        clock.now = 1000.0
        with rig(clock) as it:
            play(it, steps, [fast] * len(steps))
            assert bool(it.server._backlog) is fast
            seen.append((it.wire.sent, it.finish()))
            assert not it.server.counters["answered otherwise"]
    assert seen[0] == seen[1]


def play(it: Rig, steps: list[tuple[str, Any]], crowded: list[bool]) -> None:
    """Say all that; where it is crowded, to a server that takes every message for one of a crowd."""
    for (what, detail), crowd in zip(steps, crowded, strict=False):
        waiting = len(it.server._backlog)
        if what == "wait":
            it.server._write_up(waiting)  # it is worked off within milliseconds
            it.pass_time(detail)
        elif what == "write up":
            it.server._write_up(min(detail, waiting))
        elif what == "edit":
            it.edited_meanwhile = it.edited_meanwhile or waiting > 0
            edit(it.hosts, *detail)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dhcp.server, "CROWD", 0 if crowd else 1000)
                it.server._handle_all([(frame_of(words(*each)), True) for each in detail])
            it.pass_time(0.01)
