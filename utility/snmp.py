"""A switch over SNMP v1, v2c and v3: get, set, walk; only this module knows pysnmp. Knows nothing of PoE or bridges.

pysnmp encodes and decodes; asking, waiting and trying again are here, one request at a time per switch. Its message
layer is used, not its engine: an engine costs 40 ms of processor for every switch and reads MIB files, and 48
switches are asked at once. pysnmp is imported where it is used, so that a command without a switch does not pay for it.
The security of v3 is in utility/usm.py.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from importlib import import_module
from types import ModuleType
from typing import Protocol, TypeVar

from utility import drivers
from utility.config import SnmpAccess, Switch
from utility.drivers import Oid
from utility.switches import SwitchError
from utility.usm import AUTHENTIC, PRIVATE, Heard, PacketError, Session, User

Value = int | bytes | Oid | None  # None: the switch has no such object
Row = tuple[Oid, Value]
Taken = TypeVar("Taken")

REPETITIONS = 20  # of a GETBULK: some agents fall over more (10 to 25 is safe)
BULK_ROWS = 45  # of all columns of one together: they fit into a packet
WALK_LIMIT = 100_000  # rows; far above the largest forwarding table, it only ends a walk that would not
GET_LIMIT = 20  # objects in one GET

# Every object that Piman asks a switch for, so that an error can name it.
OBJECTS: dict[str, Oid] = {
    "sysDescr": (1, 3, 6, 1, 2, 1, 1, 1),
    "sysObjectID": (1, 3, 6, 1, 2, 1, 1, 2),
    "sysUpTime": (1, 3, 6, 1, 2, 1, 1, 3),
    "sysName": (1, 3, 6, 1, 2, 1, 1, 5),
    "ifDescr": (1, 3, 6, 1, 2, 1, 2, 2, 1, 2),
    "ifType": (1, 3, 6, 1, 2, 1, 2, 2, 1, 3),
    "ifAdminStatus": (1, 3, 6, 1, 2, 1, 2, 2, 1, 7),
    "ifOperStatus": (1, 3, 6, 1, 2, 1, 2, 2, 1, 8),
    "ifName": (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1),
    "ifAlias": (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18),
    "dot1dBasePortIfIndex": (1, 3, 6, 1, 2, 1, 17, 1, 4, 1, 2),
    "dot1dStpPortState": (1, 3, 6, 1, 2, 1, 17, 2, 15, 1, 3),
    "dot1dTpFdbPort": (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 2),
    "dot1dTpFdbStatus": (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 3),
    "dot1qTpFdbPort": (1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 2, 1, 2),
    "vmVlan": (1, 3, 6, 1, 4, 1, 9, 9, 68, 1, 2, 2, 1, 2),  # Cisco's: the VLAN of an access port, by ifIndex
    "vlanTrunkPortNativeVlan": (1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 6, 1, 1, 5),
    "vtpVlanState": (1, 3, 6, 1, 4, 1, 9, 9, 46, 1, 3, 1, 1, 2),  # .1.vlan
    "lldpRemChassisIdSubtype": (1, 0, 8802, 1, 1, 2, 1, 4, 1, 1, 4),
    **drivers.OBJECTS,
}


def name_of(oid: Oid) -> str:
    """`pethPsePortAdminEnable.1.3`, or the bare numbers of an object that is not ours."""
    for name, base in OBJECTS.items():
        if oid[: len(base)] == base:
            return ".".join([name, *map(str, oid[len(base) :])])
    return ".".join(map(str, oid))


def text_of(value: Value) -> str:
    """A switch's word for a human: nothing in it moves a cursor."""
    text = value.decode("utf-8", "replace").strip("\0 ") if isinstance(value, bytes) else ""
    return "".join(each if each.isprintable() else "?" for each in text)


class SnmpError(SwitchError):
    """A switch did not do what it was asked over SNMP; `oid` names the object in the line that `str()` is."""

    def __init__(self, switch: Switch, oid: Oid | None, reason: str, port: int | None = None) -> None:
        super().__init__(switch, "" if oid is None else name_of(oid), reason, port)
        self.oid = oid

    def at_port(self, port: int) -> SnmpError:
        """The same error, with the port that was being worked on."""
        return SnmpError(self.switch, self.oid, self.reason, port)


class NoAnswerError(SnmpError):
    """It was silent."""


class Kind(Enum):
    """A request, by the name that pysnmp has for its PDU."""

    GET = "GetRequestPDU"
    NEXT = "GetNextRequestPDU"
    SET = "SetRequestPDU"
    BULK = "GetBulkRequestPDU"


class Status(IntEnum):
    """error-status of a response (RFC 3416 section 3)."""

    NO_ERROR = 0
    TOO_BIG = 1
    NO_SUCH_NAME = 2
    BAD_VALUE = 3
    READ_ONLY = 4
    GEN_ERR = 5
    NO_ACCESS = 6
    WRONG_TYPE = 7
    WRONG_LENGTH = 8
    WRONG_ENCODING = 9
    WRONG_VALUE = 10
    NO_CREATION = 11
    INCONSISTENT_VALUE = 12
    RESOURCE_UNAVAILABLE = 13
    COMMIT_FAILED = 14
    UNDO_FAILED = 15
    AUTHORIZATION_ERROR = 16
    NOT_WRITABLE = 17
    INCONSISTENT_NAME = 18


_MAY_NOT_WRITE = "the write community may not write it: give it write access on the switch, or another community to us"
_MAY_NOT_READ = {Status.NO_ACCESS, Status.AUTHORIZATION_ERROR}
_MAY_NOT_READ_TEXT = "the read community may not read it: give it access on the switch, or another community to us"
_NO_SUCH_OBJECT = "the switch has no such object to set: is this a PoE port?"
_SET_REASONS = {
    Status.NO_SUCH_NAME: f"{_NO_SUCH_OBJECT} Or may the write community not write it?",  # all that v1 can say
    Status.NO_CREATION: _NO_SUCH_OBJECT,
    Status.INCONSISTENT_NAME: _NO_SUCH_OBJECT,
    Status.READ_ONLY: _MAY_NOT_WRITE,
    Status.NO_ACCESS: _MAY_NOT_WRITE,
    Status.NOT_WRITABLE: _MAY_NOT_WRITE,
    Status.AUTHORIZATION_ERROR: _MAY_NOT_WRITE,
    Status.GEN_ERR: _MAY_NOT_WRITE,  # what switches say that do not check further
}


@dataclass(frozen=True, slots=True)
class Response:
    """A decoded response; `index` counts from 1 and names the object that `status` is about, 0 none.

    kinds      the type of each row's value, by the name that its MIB has for it
    is_report  v3: not an answer, but why there is none; the first row says which
    """

    request_id: int
    status: Status
    index: int
    rows: tuple[Row, ...]
    kinds: tuple[str, ...] = field(default=(), compare=False)
    is_report: bool = False


def encode_request(
    version: str, community: str, kind: Kind, request_id: int, rows: Iterable[Row], *, repetitions: int = 0
) -> bytes:
    """A message of SNMP version "1" or "2c"; a row with None asks, one with an int sets that INTEGER."""
    protocol = _protocol(version)
    message = protocol.Message()
    protocol.apiMessage.set_defaults(message)
    protocol.apiMessage.set_community(message, community.encode())
    protocol.apiMessage.set_pdu(message, _make_pdu(protocol, kind, request_id, rows, repetitions))
    encoded: bytes = import_module("pyasn1.codec.ber.encoder").encode(message)
    return encoded


def encode_pdu(kind: Kind, request_id: int, rows: Iterable[Row], *, repetitions: int = 0) -> bytes:
    """The same without a message around it, as version 3 has it in its own."""
    pdu = _make_pdu(_protocol("2c"), kind, request_id, rows, repetitions)
    encoded: bytes = import_module("pyasn1.codec.ber.encoder").encode(pdu)
    return encoded


def _make_pdu(protocol: ModuleType, kind: Kind, request_id: int, rows: Iterable[Row], repetitions: int) -> object:
    pdu = getattr(protocol, kind.value)()
    if kind is Kind.BULK:
        protocol.apiBulkPDU.set_defaults(pdu)
        protocol.apiBulkPDU.set_max_repetitions(pdu, repetitions)
    else:
        protocol.apiPDU.set_defaults(pdu)
    protocol.apiPDU.set_request_id(pdu, request_id)
    bindings = [(oid, protocol.Null("") if value is None else protocol.Integer(value)) for oid, value in rows]
    protocol.apiPDU.set_varbinds(pdu, bindings)
    return pdu


def decode_response(version: str, data: bytes) -> Response:
    """The response in a datagram of version "1" or "2c"; PacketError for whatever is none."""
    protocol = _protocol(version)
    with _told():
        message, _rest = import_module("pyasn1.codec.ber.decoder").decode(data, asn1Spec=protocol.Message())
        pdu = protocol.apiMessage.get_pdu(message)
        if int(message["version"]) != (0 if version == "1" else 1) or not isinstance(pdu, protocol.GetResponsePDU):
            raise PacketError("another version, or no response")
        return _response(protocol, pdu)


def decode_pdu(data: bytes) -> Response:
    """The response or the report that a message of version 3 holds; PacketError for whatever is none."""
    protocol = _protocol("2c")
    with _told():
        spec = import_module("pysnmp.proto.rfc1905").PDUs()
        choice, _rest = import_module("pyasn1.codec.ber.decoder").decode(data, asn1Spec=spec)
        pdu = choice.getComponent()
        is_report = isinstance(pdu, protocol.ReportPDU)
        if not is_report and not isinstance(pdu, protocol.GetResponsePDU):
            raise PacketError("no response")
        return replace(_response(protocol, pdu), is_report=is_report)


def _response(protocol: ModuleType, pdu: object) -> Response:
    rows = [(tuple(oid), value) for oid, value in protocol.apiPDU.get_varbinds(pdu)]
    return Response(
        int(protocol.apiPDU.get_request_id(pdu)),
        Status(int(protocol.apiPDU.get_error_status(pdu))),
        int(protocol.apiPDU.get_error_index(pdu, muteErrors=True)),
        tuple((oid, _plain(value)) for oid, value in rows),
        tuple(type(value).__name__ for _, value in rows),
    )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what decoding raises into a PacketError."""
    # pysnmp and pyasn1 each have their own; garbage also reaches code of theirs that expects none.
    broken = (import_module("pyasn1.error").PyAsn1Error, import_module("pysnmp.error").PySnmpError)
    try:
        yield
    except (*broken, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise PacketError(f"no SNMP response: {type(error).__name__}") from error


def _protocol(version: str) -> ModuleType:
    return import_module("pysnmp.proto.api.v1" if version == "1" else "pysnmp.proto.api.v2c")


class _Asn1(Protocol):
    """A value as pysnmp has it."""

    def __int__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __iter__(self) -> Iterator[int]: ...


def _plain(value: _Asn1) -> Value:
    """A Python value for one of pysnmp's: int, bytes, an OID, or None for Null and "no such object"."""
    univ = import_module("pyasn1.type.univ")
    if isinstance(value, univ.Integer):
        return int(value)
    if isinstance(value, univ.ObjectIdentifier):
        return tuple(value)
    # The "no such" markers of v2c are kinds of Null, and Null is a kind of octet string to pyasn1.
    return None if isinstance(value, univ.Null) else bytes(value)


class Wire(Protocol):
    """How datagrams reach one switch."""

    def send(self, datagram: bytes) -> None:
        """Raises OSError, where the network says at once that nobody is there."""

    def receive(self, timeout: float) -> bytes | None:
        """The next datagram from the switch, None after `timeout` seconds; OSError as above."""

    def close(self) -> None: ...


class UdpWire:
    """A connected socket: only the switch itself is heard, and a closed port is told at once."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.connect((address, port))
        except OSError:
            self._socket.close()
            raise

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def receive(self, timeout: float) -> bytes | None:
        # poll, not select: a server with many connections has descriptors above 1024.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return self._socket.recv(65535) if poll.poll(max(timeout, 0) * 1000) else None

    def close(self) -> None:
        self._socket.close()


# What a report of v3 says, by the last numbers of its object (RFC 3414 section 5, RFC 3413 section 4.1.2).
_USM: Oid = (1, 3, 6, 1, 6, 3, 15, 1, 1)
_TARGET: Oid = (1, 3, 6, 1, 6, 3, 12, 1)
_LATE, _OTHER_ENGINE = (*_USM, 2, 0), (*_USM, 4, 0)
_REPORTS: dict[Oid, str] = {
    (*_USM, 1, 0): (
        "it does not give user {user} this level of security: is {auth} with {priv} what the user has on the switch?"
    ),
    _LATE: "its clock is always another than it says: its agent is broken",
    (*_USM, 3, 0): "it knows no user {user}: create it on the switch, or correct `user:` or PIMAN_SNMP_USER",
    _OTHER_ENGINE: "it is always another engine than it says: its agent is broken",
    (*_USM, 5, 0): (
        "user {user} has another auth password or protocol there: "
        "correct PIMAN_SNMP_AUTH_PASSWORD, or auth_protocol ({auth})"
    ),
    (*_USM, 6, 0): (
        "user {user} has another priv password or protocol there: "
        "correct PIMAN_SNMP_PRIV_PASSWORD, or priv_protocol ({priv})"
    ),
    (*_TARGET, 4, 0): "it has no such context now",
    (*_TARGET, 5, 0): "it has no context {context!r}",
}
_ENGINE_ROUNDS = 4  # of one try: who it is, what time it is there, and once more each


class _Line:
    """What all who ask one switch share. `lock`: one request at a time is under way, small switches drop a second."""

    def __init__(self, access: SnmpAccess, address: str, connect: Callable[[str, int], Wire]) -> None:
        self.lock = threading.Lock()
        self.ids = itertools.count(random.randrange(1, 1 << 30))
        self.session = Session(make_user(access))
        self.has_bulk = access.bulk and access.version != "1"
        self._address, self._port, self._connect = address, access.port, connect
        self._wire: Wire | None = None

    def open(self) -> Wire:
        if self._wire is None:
            self._wire = self._connect(self._address, self._port)
        return self._wire

    def close(self) -> None:
        if self._wire:
            self._wire.close()
        self._wire = None


def make_user(access: SnmpAccess) -> User:
    """Who asks by version 3; the word `none` for a protocol is for none."""
    auth, priv = ("" if each == "none" else each for each in (access.auth_protocol, access.priv_protocol))
    return User(access.user, auth, access.auth_password, priv, access.priv_password)


class Snmp:
    """One switch. Any thread may ask; one request at a time is under way.

    `connect` and `clock` are there for tests. Nothing is sent before the first request.
    """

    def __init__(
        self,
        switch: Switch,
        connect: Callable[[str, int], Wire] = UdpWire,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.switch = switch
        self._clock = clock
        self._context = ""
        self._line = _Line(switch.snmp, str(switch.address), connect)

    def __enter__(self) -> Snmp:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back; a later request opens a new one."""
        with self._line.lock:
            self._line.close()

    def in_vlan(self, vlan: int, *, sure: bool = False) -> Snmp:
        """The same switch asked about one VLAN the way Cisco wants it: `community@vlan`, or the context vlan-N of v3.

        Unless it is `sure` that there is this VLAN, one try only: a switch that knows no such community is silent.
        """
        access = self.switch.snmp
        access = replace(
            access, read_community=f"{access.read_community}@{vlan}", retries=access.retries if sure else 0
        )
        it = Snmp(replace(self.switch, snmp=access), clock=self._clock)
        it._line, it._context = self._line, f"vlan-{vlan}"
        return it

    def get(self, oids: Sequence[Oid]) -> dict[Oid, Value]:
        """The value of each object, None where the switch has none; SnmpError."""
        values: dict[Oid, Value] = {}
        for start in range(0, len(oids), GET_LIMIT):
            values |= self._get_some(list(oids[start : start + GET_LIMIT]))
        return values

    def _get_some(self, oids: list[Oid]) -> dict[Oid, Value]:
        values: dict[Oid, Value] = dict.fromkeys(oids)
        wanted = list(values)
        while wanted:
            response = self._ask(Kind.GET, [(oid, None) for oid in wanted])
            if response.status == Status.NO_SUCH_NAME and 1 <= response.index <= len(wanted):
                # v1 refuses the whole request for one missing object: ask again for the others.
                del wanted[response.index - 1]
                continue
            if response.status == Status.TOO_BIG and len(wanted) > 1:
                half = len(wanted) // 2
                return values | self._get_some(wanted[:half]) | self._get_some(wanted[half:])
            self._check(response, wanted[0])
            return values | {oid: value for oid, value in response.rows if oid in values}
        return values

    def set(self, oid: Oid, value: int) -> None:
        """Set one INTEGER object; SnmpError where the switch refuses. The caller reads back whether it took effect."""
        response = self._ask(Kind.SET, [(oid, value)])
        if response.status:
            refused = f"the switch refuses the value {value} ({_words(response.status)})"
            raise SnmpError(self.switch, oid, self._named(_SET_REASONS.get(response.status, refused)))

    def walk(self, base: Oid) -> list[Row]:
        """Every object below `base`, in order; empty where there is none. SnmpError, also for an endless walk."""
        return [(oid, value) for oid, value, _ in self.rows(base)]

    def columns(self, bases: Sequence[Oid]) -> dict[Oid, list[Row]]:
        """The same as `walk` of each, several in one request: a table costs as many answers as its longest column."""
        found: dict[Oid, list[Row]] = {base: [] for base in bases}
        last = {base: base for base in found}  # of those not at their end
        while last:
            asked = list(last)
            response = self._ask_on(list(last.values()))
            if response.status == Status.NO_SUCH_NAME:  # how v1 says that nothing comes after one of them
                del last[asked[max(response.index, 1) - 1 if response.index <= len(asked) else 0]]
                continue
            self._check(response, last[asked[0]])
            ended = set() if response.rows else set(asked)
            for place, (oid, value) in enumerate(response.rows):
                base = asked[place % len(asked)]
                if base in ended:
                    continue
                if oid[: len(base)] != base or value is None:
                    ended.add(base)
                    continue
                if oid <= last[base]:
                    raise SnmpError(self.switch, oid, "the switch answers in a circle: its agent is broken")
                if len(found[base]) >= WALK_LIMIT:
                    raise SnmpError(self.switch, base, f"more than {WALK_LIMIT} rows: its agent is broken")
                found[base].append((oid, value))
                last[base] = oid
            for base in ended:
                del last[base]
        return found

    def next(self, oid: Oid) -> Row | None:
        """The object after `oid`, in the order of the whole tree; None: it was the last. SnmpError."""
        response = self._ask(Kind.NEXT, [(oid, None)])
        if response.status == Status.NO_SUCH_NAME or not response.rows:
            return None
        self._check(response, oid)
        return response.rows[0] if response.rows[0][1] is not None else None

    def rows(self, base: Oid) -> Iterator[tuple[Oid, Value, str]]:
        """The same as `walk`, as they come, with their types: whoever has enough may stop."""
        last, count = base, 0
        while count < WALK_LIMIT:
            response = self._ask_on([last])
            if response.status == Status.NO_SUCH_NAME:  # how v1 says that nothing comes after
                return
            self._check(response, last)
            for (oid, value), kind in zip(response.rows, response.kinds, strict=True):
                if oid[: len(base)] != base or value is None:
                    return
                if oid <= last:
                    raise SnmpError(self.switch, oid, "the switch answers in a circle: its agent is broken")
                yield oid, value, kind
                last = oid
            count += len(response.rows)
            if not response.rows:
                return
        raise SnmpError(self.switch, base, f"more than {WALK_LIMIT} rows: its agent is broken")

    def _ask_on(self, last: Sequence[Oid]) -> Response:
        """What comes after each; by GETBULK, unless this agent fails at it, or falls silent over it."""
        rows: list[Row] = [(oid, None) for oid in last]
        if not self._line.has_bulk:
            return self._ask(Kind.NEXT, rows)
        silence: SnmpError | None = None
        try:
            response = self._ask(Kind.BULK, rows)
            if not response.status:
                return response
        except NoAnswerError as error:
            silence = error
        try:
            response = self._ask(Kind.NEXT, rows)
        except NoAnswerError as error:
            raise silence or error from None
        self._line.has_bulk = False
        return response

    def _check(self, response: Response, oid: Oid) -> None:
        if response.status in _MAY_NOT_READ:
            raise SnmpError(self.switch, oid, self._named(_MAY_NOT_READ_TEXT))
        if response.status:
            raise SnmpError(self.switch, oid, f"the switch answers {_words(response.status)}")

    def _named(self, text: str) -> str:
        """v3 has users, where the others have communities."""
        if self.switch.snmp.version != "3":
            return text
        for kind in ("read", "write"):
            text = text.replace(f"the {kind} community", f"the user {self.switch.snmp.user}")
        return text.replace("another community", "another user")

    # -- one request

    def _ask(self, kind: Kind, rows: Sequence[Row]) -> Response:
        """Send one request and wait for its response, as often as the switch's settings say."""
        access, line = self.switch.snmp, self._line
        with line.lock:
            request_id = next(line.ids)
            try:
                wire = line.open()
                ask = self._asker(kind, request_id, rows)
                for _try in range(access.retries + 1):
                    # The same request id each time: a SET that is done twice does no harm here, and a late answer to
                    # the first try is as good as one to the second.
                    response = ask(wire)
                    if response:
                        return response
                reason = self._silence(wire, kind)
            except ConnectionRefusedError:
                raise SnmpError(self.switch, rows[0][0], f"port {access.port} is closed: is SNMP on?") from None
            except OSError as error:
                raise SnmpError(self.switch, rows[0][0], f"cannot be reached: {error.strerror or error}") from error
        raise NoAnswerError(self.switch, rows[0][0], reason)

    def _asker(self, kind: Kind, request_id: int, rows: Sequence[Row]) -> Callable[[Wire], Response | None]:
        """One try of that request."""
        access = self.switch.snmp
        repetitions = min(REPETITIONS, max(1, BULK_ROWS // len(rows)))
        if access.version == "3":
            pdu = encode_pdu(kind, request_id, rows, repetitions=repetitions)
            return lambda wire: self._ask_engine(wire, rows[0][0], pdu)
        community = access.write_community if kind is Kind.SET else access.read_community
        request = encode_request(access.version, community, kind, request_id, rows, repetitions=repetitions)

        def take(datagram: bytes) -> Response | None:
            response = decode_response(access.version, datagram)
            return response if response.request_id == request_id else None

        def ask(wire: Wire) -> Response | None:
            wire.send(request)
            return self._await(wire, take)

        return ask

    def _await(self, wire: Wire, take: Callable[[bytes], Taken | None]) -> Taken | None:
        """What `take` takes first, None when the time of one try is over; what else arrives is passed over."""
        deadline = self._clock() + self.switch.snmp.timeout
        while (left := deadline - self._clock()) > 0:
            datagram = wire.receive(left)
            if datagram is None:
                return None
            try:
                taken = take(datagram)
            except PacketError:
                continue
            if taken is not None:
                return taken
        return None

    def _silence(self, wire: Wire, kind: Kind) -> str:
        """Why there was no answer, as far as one can know."""
        access = self.switch.snmp
        tries = "1 try" if access.retries == 0 else f"{access.retries + 1} tries"
        silence = f"no answer from {self.switch.address} in {tries} of {access.timeout:g} s"
        if access.version != "3":
            which = "write" if kind is Kind.SET else "read"
            return f"{silence}: is the address right, SNMP on, and the {which} community?"
        if not self._line.session.knows_engine:
            return f"{silence}: is the address right, and SNMP version 3 on?"
        if self._context:
            return f"{silence} in the context {self._context}: is it there, and may the user {access.user} ask in it?"
        if self._line.session.user.level & PRIVATE and self._answers_in_clear(wire):
            # Some say nothing to what they cannot decrypt, in the place of a report.
            return self._reason((*_USM, 6, 0))
        return f"{silence}, though it says who it is: may the user {access.user} ask, at this level of security?"

    # -- version 3; with the lock held

    def _ask_engine(self, wire: Wire, oid: Oid, pdu: bytes) -> Response | None:
        """One try: who the switch is, where that is not known, and the request; None for silence."""
        session = self._line.session
        report: Oid = ()
        for _round in range(_ENGINE_ROUNDS):
            if not session.knows_engine:
                if self._exchange(wire, lambda number: session.discover(number, encode_pdu(Kind.GET, 0, ()))) is None:
                    return None
                continue
            taken = self._exchange(wire, lambda number: session.encode(number, self._context, pdu, self._clock()))
            if taken is None:
                return None
            heard, response = taken
            if not response.is_report:
                return response
            report = response.rows[0][0] if response.rows else ()
            if report not in {_LATE, _OTHER_ENGINE}:
                break
            # Late: a signed report has just told us the time. Otherwise ask anew who it is and what time it is there.
            if report == _OTHER_ENGINE or not heard.authentic:
                session.forget()
        raise SnmpError(self.switch, oid, self._reason(report))

    def _exchange(self, wire: Wire, make: Callable[[int], bytes]) -> tuple[Heard, Response] | None:
        """Send one message; what comes back for it."""
        message_id, session = next(self._line.ids), self._line.session

        def take(datagram: bytes) -> tuple[Heard, Response] | None:
            heard = session.decode(datagram, self._clock())
            if heard.message_id != message_id:
                return None
            response = decode_pdu(heard.pdu)
            # Only a report may come without the signature that the user's level asks for.
            return (heard, response) if heard.authentic or response.is_report or not session.user.level else None

        wire.send(make(message_id))
        return self._await(wire, take)

    def _answers_in_clear(self, wire: Wire) -> bool:
        """Whether it answers a message that is signed only: then it is the encryption that it does not understand."""
        session = self._line.session
        pdu = encode_pdu(Kind.GET, next(self._line.ids), [((*OBJECTS["sysUpTime"], 0), None)])
        taken = self._exchange(wire, lambda number: session.encode(number, "", pdu, self._clock(), level=AUTHENTIC))
        return taken is not None and taken[0].authentic

    def _reason(self, report: Oid) -> str:
        access = self.switch.snmp
        reason = _REPORTS.get(report, f"it answers with the report {name_of(report)}")
        return reason.format(
            user=access.user, auth=access.auth_protocol, priv=access.priv_protocol, context=self._context
        )


def _words(status: Status) -> str:
    """`wrongValue` for WRONG_VALUE, as the RFC spells it."""
    first, *others = status.name.lower().split("_")
    return first + "".join(word.capitalize() for word in others)
