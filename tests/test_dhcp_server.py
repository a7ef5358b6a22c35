"""dhcp/server.py over real sockets on the loopback interface: what it binds, hears, drops, sends, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

import dhcp.policy
import dhcp.server
import dhcp.sockets
from dhcp.boards import BOOT_ROM_GUID
from dhcp.frames import BROADCAST_MAC, Frame, encode_arp_request, parse_frame
from dhcp.packet import Packet, PacketError, Value, parse
from dhcp.policy import DhcpPolicy
from dhcp.prepared import Answered, Prepared
from dhcp.proxy import ProxyPolicy
from dhcp.replies import BROADCAST, DhcpSettings
from dhcp.server import SIOCDARP, SIOCSARP, DhcpServer
from dhcp.sockets import FrameSocket
from utility.hosts import Host
from utility.service import Report, Severity, Stage

LO_MAC = "00:00:00:00:00:00"  # of the loopback interface: frames to any other MAC are "to another host"
MAC = "b8:27:eb:01:02:03"
ADDRESS = IPv4Address("127.0.0.13")
SETTINGS = DhcpSettings(IPv4Address("127.0.0.1"), IPv4Network("127.0.0.0/8"))
HOSTS = {MAC: Host(MAC, ADDRESS, "pi3"), "02:00:00:00:00:03": Host("02:00:00:00:00:03", IPv4Address("127.0.0.14"))}
LOADER = "PXEClient:Arch:00000:UNDI:002001"
DISCOVER = Packet(op=1, xid=7, chaddr=bytes.fromhex("b827eb010203"), options={53: 1, 60: LOADER})


class Bench:
    """A server on `lo`, what it reported, and a raw socket that sees what it sends."""

    def __init__(self, policy: DhcpPolicy | ProxyPolicy | None = None) -> None:
        self.reports: list[Report] = []
        self.policy = policy or DhcpPolicy(SETTINGS, HOSTS.get)
        self.kept: list[tuple[object, ...]] = []
        self.server = DhcpServer(
            "lo",
            self.policy,
            self.reports.append,
            save_lease=lambda *lease: self.kept.append(lease),
            forget_lease=lambda mac: self.kept.append((mac,)),
        )
        self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.wire.bind(("lo", 0x0800))
        self.wire.settimeout(5)

    def put(self, packet: Packet | bytes, destination: IPv4Address = BROADCAST, mac: str = LO_MAC) -> None:
        payload = packet if isinstance(packet, bytes) else packet.encode()
        self.wire.send(Frame(MAC, mac, IPv4Address(0), destination, 68, 67, payload).encode())

    def take(self) -> Frame:
        """The next frame to a client."""
        while True:
            frame = parse_frame(self.wire.recv(65535), checksum_ready=False)
            if frame.destination_port == 68:
                return frame

    def say(self, mac: str, address: str) -> None:
        """An ARP packet of somebody with that address."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("lo", 0))
            frame = bytearray(encode_arp_request(mac, IPv4Address(address), ADDRESS))
            frame[0:6] = bytes(6)  # to this machine
            wire.send(frame)

    def ask(self, packet: Packet) -> Packet:
        self.put(packet)
        return parse(self.take().payload)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with running(Bench()) as it:
        yield it


@contextlib.contextmanager
def running(it: Bench) -> Iterator[Bench]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            it.server.run()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield it
    finally:
        it.server.stop()
        thread.join(1)
        it.wire.close()
    assert not thread.is_alive()
    assert not failures


@contextlib.contextmanager
def served(server: DhcpServer) -> Iterator[None]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join(1)
        assert not thread.is_alive()


# --- what it binds ---


def make(interface: str) -> DhcpServer:
    return DhcpServer(interface, DhcpPolicy(SETTINGS, HOSTS.get), lambda _: None)


def test_a_missing_interface_is_named_with_those_that_exist() -> None:
    with pytest.raises(OSError, match=r"no network interface eth9; there are: .*\blo\b") as caught:
        make("eth9")
    assert caught.value.errno == errno.ENODEV


def test_a_taken_port_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 67))
        with pytest.raises(OSError, match="UDP port 67 on lo") as caught:
            make("lo")
    assert caught.value.errno == errno.EADDRINUSE
    with served(make("lo")):  # and nothing of the first attempt is left
        pass


@pytest.mark.parametrize(
    ("place", "text"),
    [("socket", "CAP_NET_RAW"), ("_attach", "a raw socket on lo"), ("second", "UDP port 67 on lo")],
)
def test_what_the_kernel_refuses_is_explained(monkeypatch: pytest.MonkeyPatch, place: str, text: str) -> None:
    calls: list[object] = []

    def refuse(*arguments: object) -> None:
        calls.append(arguments)
        if place != "second" or len(calls) == 2:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    if place == "socket":
        monkeypatch.setattr(socket, "socket", refuse)
    else:
        monkeypatch.setattr(dhcp.sockets, "_attach", refuse)
    with pytest.raises(PermissionError, match=f"{text}.*not permitted"):
        make("lo")


def test_stop_before_run_and_twice() -> None:
    server = make("lo")
    server.stop()
    server.stop()
    server.run()
    server.stop()


# --- what it answers ---


def test_a_frame_straight_to_the_mac(bench: Bench) -> None:
    bench.put(DISCOVER)
    frame = bench.take()
    assert (frame.source_mac, frame.destination_mac) == (LO_MAC, MAC)
    assert (frame.source, frame.destination) == (SETTINGS.server, ADDRESS)
    assert (frame.source_port, frame.destination_port) == (67, 68)
    offer = parse(frame.payload)
    assert (offer.yiaddr, offer.number(53)) == (ADDRESS, 2)


def test_a_frame_to_all(bench: Bench) -> None:
    bench.put(replace(DISCOVER, flags=0x8000))
    frame = bench.take()
    assert (frame.destination_mac, frame.destination) == (BROADCAST_MAC, BROADCAST)


def test_a_renewal_through_the_kernel_is_answered_exactly_once(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((str(ADDRESS), 68))
        client.settimeout(5)
        client.connect(("127.0.0.1", 67))
        for xid in (1, 2):  # an answer too many to the first would be found in the place of the second's
            request = replace(DISCOVER, xid=xid, options={53: 3}, ciaddr=ADDRESS)
            client.send(request.encode())
            ack = parse(client.recv(2048))
            assert (ack.number(53), ack.xid, ack.ciaddr) == (5, xid, ADDRESS)
    assert bench.server.counters["received"] == 2


def test_reports_and_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="piman.dhcp")
    bench.ask(DISCOVER)
    bench.ask(replace(DISCOVER, options={53: 3, 60: LOADER, 54: SETTINGS.server, 50: ADDRESS}))
    bench.put(replace(DISCOVER, options={53: 4, 54: SETTINGS.server, 50: ADDRESS}))
    bench.put(replace(DISCOVER, chaddr=bytes.fromhex("020000000001")))
    bench.ask(DISCOVER)
    bench.server.stop()
    told = [(each.mac, each.stage) for each in bench.reports if each.stage or each.event]
    stranger = "02:00:00:00:00:01"
    stages = [(MAC, Stage.DISCOVER), (MAC, Stage.LEASE), (MAC, None), (stranger, None), (MAC, Stage.DISCOVER)]
    assert told == stages
    assert [each.severity for each in bench.reports if "declined" in each.event] == [Severity.WARNING]
    # Events become lines of the log where they are kept; here they are packets.
    assert not [each for each in caplog.records if each.levelno > logging.DEBUG]
    lines = [each.getMessage() for each in caplog.records if each.getMessage().startswith("pi3: heard")]
    assert "pi3: heard 'DHCPDISCOVER', sent '' the boot loader asks for an address" in lines
    assert len([line for line in lines if line.endswith("another machine on the network uses it")]) == 1


# --- what it drops ---


def test_garbage_is_counted_and_changes_nothing(bench: Bench) -> None:
    good = DISCOVER.encode()
    for size in range(0, 240, 20):
        bench.put(good[:size])
    bench.put(good + bytes(5000))
    bench.put(bytes(300))
    bench.put(DISCOVER, IPv4Address("127.0.0.99"))
    bench.put(DISCOVER, mac="02:00:00:00:00:02")
    bench.put(replace(DISCOVER, op=2))
    bench.wire.send(Frame(MAC, LO_MAC, IPv4Address(0), BROADCAST, 68, 69, good).encode())  # not to our port
    assert bench.ask(replace(DISCOVER, xid=9)).xid == 9
    counters = bench.server.counters
    assert counters["malformed"] == 14
    assert counters["not to us"] == 2
    assert counters["no message of a client"] == 1
    wait_for(lambda: counters["sent"] == 1)  # counted after the bytes are out


def wait_for(true: Callable[[], bool]) -> None:
    """Give the server's thread its turn until it has done what it was sent; the test's time limit ends it if not."""
    while not true():
        threading.Event().wait(0.002)


def test_a_reply_that_cannot_be_sent_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Packet) -> bytes:
        raise PacketError("no bytes")

    with monkeypatch.context() as patch:
        patch.setattr(Packet, "encode", refuse)
        bench.put(b"\x01\x01\x06\0" + bytes(24) + DISCOVER.chaddr + bytes(202) + b"\x63\x82\x53\x63\x35\x01\x01\xff")
        wait_for(lambda: bench.server.counters["not sent"] == 1)
    assert bench.ask(DISCOVER).yiaddr == ADDRESS


# --- a crowd ---


def crowd(bench: Bench, xids: Sequence[int]) -> None:
    """All ask before the server looks."""
    for xid in xids:
        bench.put(replace(DISCOVER, xid=xid, options={53: 1, 60: LOADER}))


def test_a_crowd_is_answered_first_and_told_of_later() -> None:
    bench = Bench()
    crowd(bench, range(100))
    with running(bench):
        assert [parse(bench.take().payload).xid for _ in range(100)] == list(range(100))
        wait_for(lambda: bench.server.counters["sent"] == 100)
    assert bench.server.counters["received"] == 100
    assert sum(each.heard == "DHCPDISCOVER" for each in bench.reports) == 100  # and nothing is lost at the end


def test_the_log_of_all_packets_leaves_nothing_to_recognition(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="piman.dhcp")
    bench = Bench()
    crowd(bench, range(40))
    with running(bench):
        wait_for(lambda: bench.server.counters["sent"] == 40)
    assert len([each for each in caplog.records if each.getMessage().startswith("received from")]) == 40


def test_an_answer_that_the_rules_would_not_give_is_told_and_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recognise = Prepared.answer

    def spoilt(self: Prepared, frame: bytes, arrived: float, checksum_ready: bool = True) -> Answered | None:
        found = recognise(self, frame, arrived, checksum_ready)
        return None if found is None else replace(found, reply=found.reply[:-1] + b"\1")

    monkeypatch.setattr(Prepared, "answer", spoilt)
    monkeypatch.setattr(dhcp.server, "CHECK_EACH", 1)
    bench = Bench()
    crowd(bench, range(40))
    with running(bench):
        wait_for(lambda: bench.server.counters["sent"] == 40)
    assert bench.server.counters["answered otherwise"] > 0
    told = [each for each in caplog.records if "otherwise than the rules say" in each.getMessage()]
    assert [each.levelno for each in told] == [logging.ERROR]


def test_answers_to_a_crowd_that_cannot_be_sent_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: FrameSocket, frames: Sequence[bytes]) -> list[OSError]:
        return [OSError(errno.ENOBUFS, "No buffer space available")] * len(frames)

    monkeypatch.setattr(FrameSocket, "send_all", refuse)
    bench = Bench()
    crowd(bench, range(40))
    with running(bench):
        wait_for(lambda: bench.server.counters["received"] == 40)
    assert bench.server.counters["sent"] + bench.server.counters["not sent"] == 40
    assert bench.server.counters["not sent"] > 0


# --- the boot ROM of the Pi 3B: late answers, and neighbours ---


def rom(xid: int = 0x26F30339) -> Packet:
    return replace(DISCOVER, xid=xid, options={53: 1, 60: LOADER, 97: BOOT_ROM_GUID})


def test_late_answers_wait_in_the_order_of_their_deadlines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.policy, "settings", replace(SETTINGS, reply_delay=1.0))
    bench.put(rom())
    bench.put(replace(rom(), chaddr=bytes.fromhex("020000000003")))
    bench.put(replace(DISCOVER, xid=8, options={53: 1}))
    assert parse(bench.take().payload).xid == 8  # nobody waits for the ROM
    assert [bench.take().destination_mac for _ in range(2)] == [MAC, "02:00:00:00:00:03"]


def test_a_neighbour_is_pinned_until_another_speaks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[tuple[int, bytes]] = []
    monkeypatch.setattr(bench.policy, "settings", replace(SETTINGS, reply_delay=0.0))
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, arp: asked.append((request, arp)))
    bench.ask(rom())
    bench.ask(rom())
    bench.ask(replace(DISCOVER, options={53: 1}))
    bench.ask(replace(DISCOVER, options={53: 1}))
    entry = struct.pack("=HH4s8xH6s8xI16x16s", 2, 0, ADDRESS.packed, 1, bytes.fromhex("b827eb010203"), 6, b"lo")
    gone = entry[:32] + bytes(4) + entry[36:]
    assert asked == [(0x8955, entry), (0x8955, entry), (0x8953, gone)]
    bench.ask(rom())
    bench.server.stop()
    wait_for(lambda: len(asked) == 5)
    assert asked[-1] == (0x8953, gone)


def test_another_board_at_the_address_of_a_pinned_one_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, arp: asked.append(request))
    other = "02:00:00:00:00:05"
    hosts = dict(HOSTS)
    policy = DhcpPolicy(replace(SETTINGS, reply_delay=0.0), hosts.get)
    with running(Bench(policy)) as bench:
        bench.ask(replace(DISCOVER, chaddr=bytes.fromhex("020000000003")))
        bench.ask(rom())
        wait_for(lambda: asked == [SIOCSARP])
        del hosts[MAC]
        hosts[other] = Host(other, ADDRESS, "")
        monkeypatch.setattr(dhcp.server, "CROWD", 1)
        assert bench.ask(replace(DISCOVER, chaddr=bytes.fromhex("020000000005"))).yiaddr == ADDRESS
        wait_for(lambda: asked == [SIOCSARP, SIOCDARP])


def test_a_neighbour_that_the_kernel_refuses_is_no_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    caplog.set_level(logging.DEBUG, logger="piman.dhcp")
    monkeypatch.setattr(bench.policy, "settings", replace(SETTINGS, reply_delay=0.0))
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert bench.ask(rom()).yiaddr == ADDRESS
    assert [each.levelname for each in caplog.records if "neighbour entry" in each.message] == ["DEBUG"]


# --- the pool, other servers, and the proxy ---

STRANGER = "02:00:00:00:00:01"
POOL = (IPv4Address("127.0.0.100"), IPv4Address("127.0.0.101"))
POOLED = replace(SETTINGS, unknown_pis="pool", pool=POOL)


def from_stranger(options: dict[int, Value]) -> Packet:
    return replace(DISCOVER, chaddr=bytes.fromhex("020000000001"), options=options)


def test_an_address_of_the_pool_is_probed_given_and_kept() -> None:
    with running(Bench(DhcpPolicy(POOLED, HOSTS.get, epoch=1e9))) as bench:
        assert bench.ask(from_stranger({53: 1})).yiaddr == POOL[0]
        bench.ask(from_stranger({53: 3, 54: SETTINGS.server, 50: POOL[0]}))
        wait_for(lambda: bool(bench.kept))
        mac, address, expires = bench.kept[0]
        assert (mac, address) == (STRANGER, POOL[0])
        assert isinstance(expires, float)
        assert expires > 1e9
        bench.put(from_stranger({53: 4, 54: SETTINGS.server, 50: POOL[0]}))
        wait_for(lambda: bench.kept[1:] == [(STRANGER,)])


def test_an_address_that_somebody_answers_for_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp.policy, "PROBE_TIME", 30.0)  # only the answer ends the wait
    with running(Bench(DhcpPolicy(POOLED, HOSTS.get))) as bench:
        bench.put(from_stranger({53: 1}))
        wait_for(lambda: bench.policy.deadline is not None)
        bench.say(MAC, "127.0.0.100")
        wait_for(lambda: any("uses 127.0.0.100" in each.event for each in bench.reports))
        bench.say(STRANGER, "127.0.0.101")
        assert parse(bench.take().payload).yiaddr == POOL[1]


def test_arp_that_is_none_is_counted() -> None:
    with running(Bench(DhcpPolicy(POOLED, HOSTS.get))) as bench:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind(("lo", 0))
            wire.send(bytes(12) + b"\x08\x06" + bytes(40))
        wait_for(lambda: bench.server.counters["malformed"] == 1)


def test_a_probe_that_cannot_be_sent_is_as_one_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(dhcp.server, "encode_arp_request", refuse)
    with running(Bench(DhcpPolicy(POOLED, HOSTS.get))) as bench:
        assert bench.ask(from_stranger({53: 1})).yiaddr == POOL[0]
        assert bench.server.counters["not sent"] == 1


OTHER_SERVER = IPv4Address("127.0.0.9")


def reply_of_another(packet: Packet) -> bytes:
    reply = replace(packet, op=2, yiaddr=POOL[1], options={53: 2, 54: OTHER_SERVER})
    return Frame("02:00:00:00:00:09", LO_MAC, OTHER_SERVER, BROADCAST, 67, 68, reply.encode()).encode()


def test_another_server_is_heard(bench: Bench) -> None:
    bench.wire.send(reply_of_another(DISCOVER))
    wait_for(lambda: len(bench.reports) == 2)
    assert [each.mac for each in bench.reports] == ["", MAC]
    assert bench.reports[0].severity is Severity.WARNING


def test_the_proxy_learns_where_a_pi_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _, request, arp: asked.append(request))
    policy = ProxyPolicy(replace(SETTINGS, reply_delay=0.0), HOSTS.get)
    with running(Bench(policy)) as bench:
        assert bench.ask(rom()).yiaddr == IPv4Address(0)
        bench.wire.send(reply_of_another(rom()))
        wait_for(lambda: policy.host_of_lease(POOL[1]) is not None)
        wait_for(lambda: asked == [0x8955])
        bench.put(replace(DISCOVER, options={53: 1}))
        wait_for(lambda: asked == [0x8955, 0x8953])
        bench.wire.send(Frame(MAC, LO_MAC, POOL[0], SETTINGS.server, 49152, 69, b"\0\1x\0octet\0").encode())
        wait_for(lambda: policy.host_of_lease(POOL[0]) is not None)
        assert policy.host_of_lease(POOL[1]) is None


def test_each_message_is_in_the_log_in_words_if_one_asks_for_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.ask(DISCOVER)
    assert not caplog.records
    caplog.set_level(logging.DEBUG, logger="piman.dhcp")
    bench.ask(DISCOVER)
    wait_for(lambda: bench.server.counters["sent"] == 2)
    lines = [each.getMessage() for each in caplog.records]
    assert any(line.startswith(f"received from {MAC} 0.0.0.0: DHCPDISCOVER {MAC} xid 00000007") for line in lines)
    wait_for(
        lambda: any(each.getMessage().startswith(f"sent to {MAC} {ADDRESS}: DHCPOFFER") for each in caplog.records)
    )
