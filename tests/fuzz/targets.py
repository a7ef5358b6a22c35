"""What is fuzzed: every parser of bytes or text from outside, each with what must hold for any input.

A target is made once in its process, and is then called with one input after the other; whatever it raises is a
finding. It must not remember anything from one input to the next, so that a finding can be reproduced from its bytes;
where it does so on purpose, to see that memory stays bounded, a comment says it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dhcp.boards
import dhcp.frames
import dhcp.packet
import monitoring.answers
import monitoring.blocks
import ntp.packet
import tcp.packet
import tftp.packet
from dhcp.policy import DhcpPolicy
from dhcp.prepared import Prepared
from dhcp.replies import BROADCAST, DhcpSettings
from dhcp.replies import Reply as DhcpReply
from monitoring.health import Health
from monitoring.metrics import METRICS, Reading
from ntp.policy import ClockState, NtpPolicy, RateLimit
from ntp.policy import Reply as NtpReply
from tcp.session import (
    Close,
    Complete,
    Disconnected,
    ImageOpened,
    ImageSent,
    Input,
    Malformed,
    Questions,
    Send,
    Session,
    State,
    Tell,
    TooMuch,
)
from tftp.files import BootFiles, Refusal, normalise
from tftp.transfer import Blocks, Netascii, ReadTransfer, Sending, negotiate
from utility.config import Config, ConfigError, Problem, Switch, load_config
from utility.drivers import Oid
from utility.ext4 import Ext4Error
from utility.findport import search_switch
from utility.hosts import Host, Plan, parse_hosts, parse_mac
from utility.power_cycle import power_cycle
from utility.rules import MAX_SECONDS, RuleError, parse_rule
from utility.snmp import Response, Snmp, SnmpError, decode_pdu, decode_response
from utility.snmp_switch import SnmpSwitch
from utility.switches import SwitchError
from utility.usm import PacketError, User
from utility.usm import Session as SecureSession

Run = Callable[[bytes], None]

MAC = "b8:27:eb:01:02:03"
SERVER = IPv4Address("172.30.4.1")
SERVER_MAC = "02:00:00:00:00:01"
ADDRESS = IPv4Address("172.30.4.13")
NETWORK = IPv4Network("172.30.4.0/24")
HOST = Host(MAC, ADDRESS, "pi3")
LIKE_IT = Host("b8:27:eb:01:02:04", IPv4Address("172.30.4.14"), "pi4")  # another board, with a name of that length


@dataclass(frozen=True, slots=True)
class Target:
    """`make` is called once; `limit` is the processor time, in seconds, that one input may take; it is the longest."""

    make: Callable[[], Run]
    longest: int = 4096  # bytes of an input
    limit: float = 0.3


# ------------------------------------------------------------------------------- an input that is a row of datagrams


def join(*events: tuple[int, bytes]) -> bytes:
    """(a number below 256, a datagram) ... -> the input that `split` takes apart again."""
    return b"".join(bytes([number]) + len(data).to_bytes(2, "big") + data for number, data in events)


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Any input -> (number, datagram) ...; the last datagram may be cut short."""
    at = 0
    while at + 3 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + size]
        at += 3 + size


def seconds(number: int) -> float:
    """A byte as a step of the clock: 0, then 0.01 s to 10 minutes."""
    return 0.0 if number == 0 else 0.01 * math.exp(number / 255 * math.log(60_000))


def raw_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def is_plain(text: str, longest: int) -> bool:
    """Whether a text can stand in a log: short, and nothing in it moves a cursor."""
    return len(text) <= longest and text.isprintable()


# ------------------------------------------------------------------------------------------------------------- dhcp


def dhcp_packet() -> Run:
    def run(data: bytes) -> None:
        try:
            packet = dhcp.packet.parse(data)
        except dhcp.packet.PacketError:
            return
        assert packet.mac == "" or len(packet.mac) == 17
        encoded = packet.encode()
        # What stood in `file` and `sname` goes into the options' area: the longest may grow beyond what we read.
        if len(encoded) <= dhcp.packet.MAX_PACKET:
            again = dhcp.packet.parse(encoded)
            assert again == packet
            assert list(again.options) == list(packet.options)

    return run


def dhcp_frame() -> Run:
    def run(data: bytes) -> None:
        try:
            frame = dhcp.frames.parse_frame(data[1:], bool(data[:1] < b"\x80"))
        except dhcp.packet.PacketError:
            return
        assert dhcp.frames.parse_frame(frame.encode()) == frame

    return run


def dhcp_guid() -> Run:
    def run(data: bytes) -> None:
        board = dhcp.boards.parse_guid(data)
        assert all(is_plain(text, 20) and text.isascii() for text in (board.model, board.serial, board.revision))

    return run


def dhcp_policy() -> Run:
    settings = DhcpSettings(
        SERVER,
        NETWORK,
        router=IPv4Address("172.30.4.254"),
        dns=(IPv4Address("10.1.1.1"), IPv4Address("10.2.2.2")),
        domain="rack.example",
    )

    def run(data: bytes) -> None:
        policy, now = DhcpPolicy(settings, {MAC: HOST}.get), 1000.0
        for step, datagram in split(data):
            now += seconds(step)
            try:
                request = dhcp.packet.parse(datagram)
            except dhcp.packet.PacketError:
                continue
            actions = policy.receive(request, now)
            replies = [action for action in actions if isinstance(action, DhcpReply)]
            assert len(replies) <= 1
            for action in actions:
                report = getattr(getattr(action, "notice", action), "report", None)
                assert report is None or (is_plain(report.event, 400) and is_plain(report.heard, 200))
            for reply in replies:
                encoded = reply.packet.encode()
                assert len(encoded) <= 1472
                assert dhcp.packet.parse(encoded) == reply.packet
                assert (reply.packet.xid, reply.packet.chaddr) == (request.xid, request.chaddr)
                assert reply.packet.yiaddr == dhcp.packet.NO_ADDRESS or reply.packet.yiaddr in NETWORK

    return run


def dhcp_prepared() -> Run:
    """Whatever is recognised is answered as the rules answer it. Each message is said by two boards in turn, each in
    its own name, so that what was learnt from one is used for the other; odd numbers damage the frame instead."""
    hosts = {MAC: HOST, LIKE_IT.mac: LIKE_IT}
    settings = DhcpSettings(SERVER, NETWORK, router=IPv4Address("172.30.4.254"), domain="rack.example")

    def encode(reply: DhcpReply) -> bytes:
        payload = reply.packet.encode()
        return dhcp.frames.Frame(SERVER_MAC, reply.mac, SERVER, reply.address, 67, reply.port, payload).encode()

    def by_rules(policy: DhcpPolicy, prepared: Prepared, data: bytes) -> list[bytes]:
        try:
            frame = dhcp.frames.parse_frame(data)
            message = dhcp.packet.parse(frame.payload)
        except dhcp.packet.PacketError:
            return []
        if frame.destination_port != 67 or frame.destination not in (SERVER, BROADCAST):
            return []
        actions = policy.receive(message, 0.0)
        prepared.observe(data, message, actions, encode)
        return [encode(action) for action in actions if isinstance(action, DhcpReply) and action.mac]

    def run(data: bytes) -> None:
        policy = DhcpPolicy(settings, hosts.get)
        prepared = Prepared(settings, policy.plain_host)
        for number, payload in split(data):
            for host in hosts.values():
                mine = payload.replace(raw_mac(MAC), raw_mac(host.mac)).replace(ADDRESS.packed, host.address.packed)
                target = SERVER if number & 2 else BROADCAST
                sent = dhcp.frames.Frame(
                    host.mac, dhcp.frames.BROADCAST_MAC, dhcp.packet.NO_ADDRESS, target, 68, 67, mine
                ).encode()
                if number & 1 and mine:
                    at = (number >> 2) * 7 % len(sent)
                    sent = sent[:at] + bytes([sent[at] ^ mine[-1]]) + sent[at + 1 :]
                found = prepared.answer(sent, 0.0)
                said = by_rules(policy, prepared, sent)
                assert found is None or [found.reply] == said

    return run


# ------------------------------------------------------------------------------------------------------------- tftp


def tftp_packet() -> Run:
    def run(data: bytes) -> None:
        try:
            packet = tftp.packet.parse(data)
        except tftp.packet.PacketError:
            return
        assert tftp.packet.parse(packet.encode()) == packet

    return run


FILE = bytes(range(256)) * 40


def tftp_transfer() -> Run:
    """The first datagram is the request, its number the file's size; then acknowledgements, garbage and time."""

    def run(data: bytes) -> None:
        events = split(data)
        number, datagram = next(events, (0, b""))
        try:
            request = tftp.packet.parse(datagram)
        except tftp.packet.PacketError:
            return
        if not isinstance(request, tftp.packet.ReadRequest):
            return
        content = FILE[: number * len(FILE) // 255]
        conversation = _Conversation(content, request)
        for what, said in events:
            conversation.step(what, said)
        conversation.finish()

    return run


class _Conversation:
    """A transfer and its client, in virtual time; checks each packet that the transfer sends."""

    def __init__(self, content: bytes, request: tftp.packet.ReadRequest) -> None:
        self.content = content
        read: Callable[[int, int], bytes] = self._read
        if request.mode == "netascii":
            read = Netascii(read)
            self.content = content.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        self._raw = content
        terms = negotiate(request.options, None if request.mode == "netascii" else len(content))
        self.blksize = terms.blksize
        self.broken = False
        self.now = 100.0
        self.last = b""
        self.transfer = ReadTransfer(Blocks(read, terms.blksize), terms)
        self.check(self.transfer.start(self.now))

    def _read(self, offset: int, length: int) -> bytes:
        if self.broken:
            raise OSError(5, "Input/output error")
        return self._raw[offset : offset + length]

    def step(self, what: int, said: bytes) -> None:
        """`what` modulo 8: most often the answer that is awaited, so that the transfer gets somewhere."""
        match what % 8:
            case 0:
                self.check(self.transfer.receive(said, self.now))
            case 1:
                self.now += seconds(what & 0xF8)
                self.check(self.transfer.tick(self.now))
            case 2 if what >= 0xF0:
                self.transfer.refused()
            case 3 if what >= 0xF0:
                self.broken = True
            case _:
                number = int.from_bytes(self.last[2:4], "big") if self.last[:2] == b"\0\3" else 0
                self.check(self.transfer.receive(tftp.packet.Ack(number).encode() + said, self.now))

    def check(self, sending: Sending) -> None:
        stride = self.blksize + 4
        for datagram in (
            bytes(each[at : at + stride]) if isinstance(each, memoryview) else each
            for each in sending
            for at in (range(0, len(each), stride) if isinstance(each, memoryview) else (0,))
        ):
            packet = tftp.packet.parse(datagram)
            assert len(datagram) <= max(self.blksize + 4, 512)
            if isinstance(packet, tftp.packet.Data):
                # Fewer than 65,536 blocks: the number tells which bytes these must be.
                start = (packet.block - 1) * self.blksize
                assert packet.block
                assert packet.payload == self.content[start : start + self.blksize]
                self.last = datagram
            elif isinstance(packet, tftp.packet.Error):
                assert self.broken
        assert math.isinf(self.transfer.deadline) == (self.transfer.result is not None)

    def finish(self) -> None:
        """The client says nothing more: the transfer must come to its end by itself."""
        for _ in range(1000):
            if self.transfer.result is not None:
                break
            assert self.transfer.deadline <= self.now + 800
            self.now = max(self.now, self.transfer.deadline)
            self.check(self.transfer.tick(self.now))
        assert self.transfer.result is not None
        assert self.transfer.receive(b"\0\4\0\1", self.now) == []


def tftp_files() -> Run:
    """A name of the wire, and after a line feed the target of the symbolic link `link`; nothing outside is read."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    boot = folder / "boot"
    (boot / "overlays").mkdir(parents=True)
    (boot / "deadbeef").mkdir()
    (boot / "b8-27-eb-01-02-03").mkdir()
    for name in ("start4.elf", "overlays/a.dtbo", "deadbeef/start4.elf", "b8-27-eb-01-02-03/config.txt", "config.txt"):
        (boot / name).write_text(f"inside {name}")
    (folder / "secret").write_text("outside")
    (boot / "out").symlink_to("../secret")
    (boot / "absolute").symlink_to(folder / "secret")
    (boot / "up").symlink_to("..")
    (boot / "loop").symlink_to("loop")
    (boot / "in").symlink_to("overlays/../deadbeef")
    os.mkfifo(boot / "fifo")
    link = boot / "link"
    descriptors = Path("/proc/self/fd")
    files = BootFiles(boot, lambda name, host: b"inside, rendered" if name == "cmdline.txt" else None)

    def run(data: bytes) -> None:
        name, _, target = data.partition(b"\n")
        link.unlink(missing_ok=True)
        if target and b"\0" not in target:
            os.symlink(target, link)  # noqa: PTH211  # bytes
        before = len(os.listdir(descriptors))  # noqa: PTH208
        requested = name.decode("latin-1")
        parts = normalise(requested)
        assert isinstance(parts, Refusal) or ".." not in parts
        content = files.open(requested, HOST if len(data) % 2 else None)
        if isinstance(content, Refusal):
            assert is_plain(content.reason, 250)
        else:
            read = content.read(0, content.size + 1)
            content.close()
            assert read.startswith(b"inside"), read[:80]
            assert len(read) == content.size
        assert len(os.listdir(descriptors)) == before  # noqa: PTH208

    return run


# -------------------------------------------------------------------------------------------------------------- ntp


def ntp_server() -> Run:
    clock = ClockState(ntp.packet.Leap.NONE, 3, -20, 11, 12, b"\x7f\0\0\x01", 0xE8000009_00000000)
    near = 1_800_000_000_000_000_000
    received = ntp.packet.timestamp(near)
    # One for all inputs, from many addresses: what it remembers must stay bounded.
    limited, now = NtpPolicy(RateLimit()), 0.0

    def run(data: bytes) -> None:
        nonlocal now
        try:
            packet = ntp.packet.NtpPacket.parse(data)
        except ntp.packet.PacketError:
            return
        assert packet.encode() == data[:48]
        for stamp in (packet.reference_time, packet.origin_time, packet.receive_time, packet.transmit_time):
            back = ntp.packet.timestamp(ntp.packet.unix_ns(stamp, near))
            assert (back - stamp) % ntp.packet.ERA < 5  # up to the next whole nanosecond
        peer = IPv4Address(data[44:48])
        now += data[40] / 100
        for policy in (NtpPolicy(), limited):
            decision = policy.receive(packet, peer, received, clock, now)
            if isinstance(decision, NtpReply):
                assert len(decision.packet.encode()) == 48
                assert decision.packet.origin_time == packet.transmit_time
                assert decision.packet.mode is ntp.packet.Mode.SERVER

    return run


# ------------------------------------------------------------------------------------------------------- hello, tcp


def tcp_lines() -> Run:
    """The bytes of a connection as they come in pieces; both directions, though only one reads them here."""

    def run(data: bytes) -> None:
        stream = data[1:]
        step = data[0] + 1 if data else 1
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        _check_commands(pieces)
        reader = tcp.packet.LineReader()
        try:
            lines = [line for piece in pieces for line in reader.feed(piece)]
        except tcp.packet.PacketError:
            return
        assert lines == stream.split(b"\n")[:-1]
        for line in lines:
            _check_line(line)

    return run


def _check_commands(pieces: list[bytes]) -> None:
    reader = tcp.packet.CommandReader()
    try:
        commands = [command for piece in pieces for command in reader.feed(piece)]
    except tcp.packet.PacketError:
        return
    for command in commands:
        if not isinstance(command, tcp.packet.Unknown):
            text = command.encode().decode().removesuffix("\nEOM\n")
            assert tcp.packet.parse_command(text) == command


def _check_line(line: bytes) -> None:
    try:
        message = tcp.packet.parse_line(line)
    except tcp.packet.PacketError as error:
        assert is_plain(str(error), 400)
        return
    if isinstance(message, tcp.packet.Unknown):
        assert is_plain(message.text, 200)
    else:
        assert tcp.packet.parse_line(message.encode().rstrip(b"\n")) == message


IMAGE = tcp.packet.Image("rootfs-0123456789ab", Path("/rootfs.tgz"), 4_000_000, "5a" * 32)


def tcp_session() -> Run:
    """The lines of a Pi with time between them, and what else happens to a session."""
    date = datetime(2026, 11, 24, 0, 15, 30, tzinfo=UTC)

    def run(data: bytes) -> None:
        order = "tok" if data[:1] >= b"\x80" else None
        image = None if data[:1] in (b"\x7f", b"\xff") else IMAGE
        session, now = Session(MAC, Questions(lambda: order, lambda: image, lambda: date), 4444, 100.0), 100.0
        for number, line in split(data[1:]):
            now += seconds((number & 0xF0) % 0xF0)
            was_closed = session.state is State.CLOSED
            actions = session.tick(now) + session.receive(_session_event(number & 15, line), now)
            assert not (was_closed and actions)
            for action in actions:
                _check_action(action)
            assert math.isinf(session.deadline) == (session.state is State.CLOSED)

    return run


def _session_event(number: int, line: bytes) -> Input:
    """From 5 on, what the server makes of a line."""
    others: tuple[Input, ...] = (
        ImageOpened(),
        ImageSent(int.from_bytes(line[:3], "big")),
        ImageSent(IMAGE.size),
        TooMuch("a line of more than 4096 bytes"),
        Disconnected(),
    )
    if number < len(others):
        return others[number]
    try:
        return tcp.packet.parse_line(line)
    except tcp.packet.PacketError as error:
        return Malformed(str(error), len(line))


def _check_action(action: object) -> None:
    match action:
        case Send(data):
            assert data.endswith(b"\nEOM\n")
            assert data.startswith((b"date ", b"busybox date ", b"format", b"boot\n", b"refuse "))
            assert data.count(b"\n") == 2
        case Tell(report):
            texts = (report.heard, report.sent, report.event, *report.facts.values())
            assert all(is_plain(text, 500) for text in texts), texts
        case Close(reason):
            assert is_plain(reason, 500)
        case _:
            assert isinstance(action, Complete)


# ------------------------------------------------------------------------------------------------------------- snmp


def snmp_packet() -> Run:
    def run(data: bytes) -> None:
        for version in ("1", "2c"):
            try:
                response = decode_response(version, data)
            except PacketError as error:
                assert is_plain(str(error), 200)
                continue
            assert isinstance(response, Response)
            for oid, value in response.rows:
                assert all(isinstance(each, int) for each in oid)
                assert value is None or isinstance(value, int | bytes | tuple)

    return run


def snmp_v3() -> Run:
    """Datagrams of an engine, the first of them its greeting. Who has another password believes none of them."""

    def run(data: bytes) -> None:
        for password in ("maplesyrup", "nobody knows"):  # the first is that of the seeds
            session = SecureSession(User("piman", "SHA-256", password, "AES", "dolphin88"))
            for number, datagram in split(data):
                try:
                    heard = session.decode(datagram, number)
                    assert not heard.authentic or password == "maplesyrup"
                    assert isinstance(decode_pdu(heard.pdu), Response)
                except PacketError as error:
                    assert is_plain(str(error), 200)
            if session.knows_engine:
                assert len(session.encode(1, "", b"\xa0\0", 300)) > 50

    return run


def snmp_switch() -> Run:
    """What a switch answers to findport: each event is a response; its number the status, its bytes the rows.

    254 is silence, 255 a datagram of just these bytes.
    """

    def run(data: bytes) -> None:
        wire = _Agent(split(data))
        with Snmp(Switch(0, IPv4Address("172.30.4.254")), lambda _address, _port: wire, lambda: wire.now) as snmp:
            try:
                for thorough in (False, True):
                    for sighting in search_switch(SnmpSwitch(snmp.switch, snmp), MAC, (4,), thorough=thorough):
                        assert sighting.if_index > 0
                        assert is_plain(sighting.where, 2000)
            except SnmpError as error:
                assert is_plain(str(error), 700), error

    return run


def snmp_power() -> Run:
    """The same to a power cycle: first the tables of its face, then whatever it says while ports are off."""
    switch = Switch(0, IPv4Address("172.30.4.254"), driver="standard")
    asked = [1, 2, 3]

    def run(data: bytes) -> None:
        wire = _Agent(split(data))
        snmp = Snmp(switch, lambda _address, _port: wire, lambda: wire.now)
        with SnmpSwitch(switch, snmp) as poe:
            try:
                results = power_cycle(poe, asked, wait=wire.wait, clock=lambda: wire.now)
            except SwitchError as error:
                assert is_plain(str(error), 700), error
            else:
                assert [result.port for result in results] == asked
                assert all(is_plain(result.text, 700) for result in results)
            assert not wire.off, "turned off, and never told to turn on"

    return run


class _Agent:
    """Answers each request with the next event; silent when there is none left. Time passes in `receive` only."""

    def __init__(self, events: Iterator[tuple[int, bytes]]) -> None:
        self.protocol = import_module("pysnmp.proto.api.v2c")
        self._encoder = import_module("pyasn1.codec.ber.encoder")
        self._decoder = import_module("pyasn1.codec.ber.decoder")
        self.now = 0.0
        self.off: set[Oid] = set()  # what it agreed to turn off, and was not told to turn on since
        self._events = events
        self._answers: list[bytes] = []

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def send(self, datagram: bytes) -> None:
        protocol = self.protocol
        message, _ = self._decoder.decode(datagram, asn1Spec=protocol.Message())
        request = protocol.apiMessage.get_pdu(message)
        bindings = [(tuple(oid), value) for oid, value in protocol.apiPDU.get_varbinds(request)]
        number, rows = next(self._events, (254, b""))
        if isinstance(request, protocol.SetRequestPDU):
            [(oid, value)] = bindings
            if int(value) == 1:
                self.off.discard(oid)
            elif number % 19 == 0:  # it says that it took the order
                self.off.add(oid)
        if number == 254:
            return
        if number == 255:  # the bytes themselves
            self._answers.append(rows)
            return
        asked = [oid for oid, _ in bindings]
        response = protocol.GetResponsePDU()
        protocol.apiPDU.set_defaults(response)
        protocol.apiPDU.set_request_id(response, protocol.apiPDU.get_request_id(request))
        protocol.apiPDU.set_error_status(response, number % 19)
        protocol.apiPDU.set_error_index(response, number // 19)
        protocol.apiPDU.set_varbinds(response, list(self._rows(asked, rows)))
        protocol.apiMessage.set_pdu(message, response)
        self._answers.append(self._encoder.encode(message))

    def receive(self, timeout: float) -> bytes | None:
        if self._answers:
            return self._answers.pop(0)
        self.now += timeout
        return None

    def close(self) -> None:
        """Nothing is held."""

    def _rows(self, asked: list[Oid], data: bytes) -> Iterator[tuple[Oid, object]]:
        """Each row: a byte that says which object was asked, how many numbers come after it, and the value's type."""
        at = 0
        while at < len(data) and at < 600:
            head = data[at]
            size = head >> 2 & 15
            tail = data[at + 1 : at + 1 + size]
            value = data[at + 1 + size : at + 2 + size]
            oid = (*asked[head >> 6 if head >> 6 < len(asked) else 0], *tail)
            kinds = (
                lambda v=value: self.protocol.Integer(int.from_bytes(v, "big", signed=True)),
                lambda v=value: self.protocol.OctetString(v * 3),
                lambda v=value: self.protocol.ObjectIdentifier((1, 3, *v)),
                lambda: self.protocol.Null(""),
            )
            yield oid, kinds[head & 3]()
            at += 2 + size


# ---------------------------------------------------------------------------------------------- files of a human


ENV = b"\n# .env\n"  # what comes after it in an input is the file .env


def config() -> Run:
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "config.yaml"

    def run(data: bytes) -> None:
        text, _, env = data.partition(ENV)
        path.write_bytes(text)
        (path.parent / ".env").write_bytes(env)
        try:
            loaded = load_config(path, environ={})
        except ConfigError as error:
            _check_report(error.problems, str(error))
        else:
            assert isinstance(loaded, Config)
            assert loaded.server_address in loaded.network
            assert all(address in loaded.network for address in loaded.pi_addresses)

    return run


def hosts() -> Run:
    path = Path("hosts.csv")
    plan = Plan(NETWORK, frozenset({SERVER, IPv4Address("172.30.4.254")}), (ADDRESS,))

    def run(data: bytes) -> None:
        try:
            table = parse_hosts(data, plan, path)
        except ConfigError as error:
            _check_report(error.problems, str(error))
            return
        assert all(host.address in NETWORK and host.address not in plan.taken for host in table.by_mac.values())
        assert len(table.by_address) == len(table.by_mac) == len(table.numbers)
        again = parse_hosts(table.encode(), plan, path, table)
        assert (again.by_mac, again.lines) == (table.by_mac, table.lines)

    return run


def _check_report(problems: tuple[Problem, ...], text: str) -> None:
    assert problems
    assert text.split("\n") == [str(problem) for problem in problems]
    assert all(is_plain(str(problem), 2000) for problem in problems), problems


def mac() -> Run:
    def run(data: bytes) -> None:
        try:
            read = parse_mac(data.decode("utf-8", "surrogateescape"))
        except ValueError as error:
            assert "is no MAC address" in str(error)
            return
        assert len(read) == 17
        assert parse_mac(read) == read

    return run


def rules() -> Run:
    def run(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        try:
            rule = parse_rule(text)
        except RuleError as error:
            assert is_plain(str(error), 1000), error
            return
        assert parse_rule(rule.expression) == rule
        assert rule.raised.seconds <= MAX_SECONDS
        tried = (-1e12, -1.0, 0.0, 1.0, 50.0, 1e12, rule.raised.number, math.nextafter(rule.raised.number, math.inf))
        assert not [value for value in tried if rule.is_broken(value) and rule.is_well(value)]
        assert is_plain(rule.says(rule.raised.number), 1000)

    return run


# --------------------------------------------------------------------------------------------------------- monitoring


def agent_answer() -> Run:
    """What listens on the agent's port may send anything: it is measurements within their ranges, or a reason."""

    def run(data: bytes) -> None:
        monitoring.answers.is_complete(data)
        try:
            answer = monitoring.answers.parse(data, MAC)
        except monitoring.answers.AnswerError as error:
            assert is_plain(str(error), 200)
            return
        assert answer.values
        assert all(METRICS[name].accepts(value) for name, value in answer.values.items())
        assert all(is_plain(word, monitoring.answers.MAX_WORD) for word in answer.words.values())
        reading = Health().take(Reading(MAC, 1.7e9, answer.values, {**answer.words, "error": ""}))
        assert reading.values["up"] == 1.0

    return run


def sample_block() -> Run:
    """A block of the history, which a damaged disk may have changed."""

    def run(data: bytes) -> None:
        try:
            block = monitoring.blocks.decode(data)
            rows = monitoring.blocks.rows_of(data, "temperature", 0)
        except monitoring.blocks.BlockError:
            return
        assert len(rows) <= len(block.times)
        assert monitoring.blocks.decode(monitoring.blocks.encode(block)).times == block.times

    return run


# --------------------------------------------------------------------------------------------------- a card's image


def ext4() -> Run:
    """A file system with patches: (its block, the place in it and the bytes there) ..."""
    it = import_module("tests.test_ext4")
    sound: bytes = it.small_file_system(Path(tempfile.mkdtemp()))

    def run(data: bytes) -> None:
        system = bytearray(sound)
        for block, patch in split(data):
            at = 1024 * block + int.from_bytes(patch[:2], "big") % 1024
            system[at : at + len(patch) - 2] = patch[2:]
        with suppress(Ext4Error, RecursionError):  # folders in folders in folders
            it.read_all(bytes(system[: len(sound)]))

    return run


TARGETS: Mapping[str, Target] = {
    "dhcp_packet": Target(dhcp_packet),
    "dhcp_frame": Target(dhcp_frame, 2000),
    "dhcp_guid": Target(dhcp_guid, 64),
    "dhcp_policy": Target(dhcp_policy),
    "dhcp_prepared": Target(dhcp_prepared, 8192),
    "tftp_packet": Target(tftp_packet, 2000),
    "tftp_transfer": Target(tftp_transfer),
    "tftp_files": Target(tftp_files, 600),
    "ntp_server": Target(ntp_server, 200),
    "tcp_lines": Target(tcp_lines, 8192),
    "tcp_session": Target(tcp_session),
    "snmp_packet": Target(snmp_packet, 2000, 1.0),
    "snmp_v3": Target(snmp_v3, 1000, 1.0),
    "snmp_switch": Target(snmp_switch, 1000, 1.0),
    "snmp_power": Target(snmp_power, 1000, 1.0),
    "config": Target(config, 6000, 2.0),
    "hosts": Target(hosts),
    "mac": Target(mac, 64),
    "rules": Target(rules, 200),
    "agent_answer": Target(agent_answer, 17_000),
    "sample_block": Target(sample_block),
    "ext4": Target(ext4, 400, 1.0),
}
