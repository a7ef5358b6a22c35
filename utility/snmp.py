"""A switch over SNMP v1 and v2c: get, set, walk; the only module that knows pysnmp. Knows nothing of PoE or bridges.

pysnmp encodes and decodes; asking, waiting and trying again are here, one request at a time per switch. Its message
layer is used, not its engine: an engine costs 40 ms of processor for every switch and reads MIB files, and 48
switches are asked at once. pysnmp is imported where it is used, so that a command without a switch does not pay for it.
"""

from __future__ import annotations

import itertools
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Protocol

from utility import drivers
from utility.config import Switch
from utility.drivers import Oid
from utility.switches import SwitchError

Value = int | bytes | Oid | None  # None: the switch has no such object
Row = tuple[Oid, Value]

REPETITIONS = 20  # of a GETBULK: some agents fall over more (10 to 25 is safe)
WALK_LIMIT = 100_000  # rows; far above the largest forwarding table, it only ends a walk that would not
GET_LIMIT = 20  # objects in one GET

# Every object that Piman asks a switch for, so that an error can name it.
OBJECTS: dict[str, Oid] = {
    "sysDescr": (1, 3, 6, 1, 2, 1, 1, 1),
    "sysObjectID": (1, 3, 6, 1, 2, 1, 1, 2),
    "sysUpTime": (1, 3, 6, 1, 2, 1, 1, 3),
    "sysName": (1, 3, 6, 1, 2, 1, 1, 5),
    "ifDescr": (1, 3, 6, 1, 2, 1, 2, 2, 1, 2),
    "ifAdminStatus": (1, 3, 6, 1, 2, 1, 2, 2, 1, 7),
    "ifOperStatus": (1, 3, 6, 1, 2, 1, 2, 2, 1, 8),
    "ifName": (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1),
    "ifAlias": (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18),
    "dot1dBasePortIfIndex": (1, 3, 6, 1, 2, 1, 17, 1, 4, 1, 2),
    "dot1dStpPortState": (1, 3, 6, 1, 2, 1, 17, 2, 15, 1, 3),
    "dot1dTpFdbPort": (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 2),
    "dot1dTpFdbStatus": (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 3),
    "dot1qTpFdbPort": (1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 2, 1, 2),
    **drivers.OBJECTS,
}


def name_of(oid: Oid) -> str:
    """`pethPsePortAdminEnable.1.3`, or the bare numbers of an object that is not ours."""
    for name, base in OBJECTS.items():
        if oid[: len(base)] == base:
            return ".".join([name, *map(str, oid[len(base) :])])
    return ".".join(map(str, oid))


class SnmpError(SwitchError):
    """A switch did not do what it was asked over SNMP; `oid` names the object in the line that `str()` is."""

    def __init__(self, switch: Switch, oid: Oid | None, reason: str, port: int | None = None) -> None:
        super().__init__(switch, "" if oid is None else name_of(oid), reason, port)
        self.oid = oid

    def at_port(self, port: int) -> SnmpError:
        """The same error, with the port that was being worked on."""
        return SnmpError(self.switch, self.oid, self.reason, port)


class PacketError(ValueError):
    """Bytes that are no SNMP response."""


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
    """A decoded response; `index` counts from 1 and names the object that `status` is about, 0 none."""

    request_id: int
    status: Status
    index: int
    rows: tuple[Row, ...]


def encode_request(
    version: str, community: str, kind: Kind, request_id: int, rows: Iterable[Row], *, repetitions: int = 0
) -> bytes:
    """A message of SNMP version "1" or "2c"; a row with None asks, one with an int sets that INTEGER."""
    protocol = _protocol(version)
    pdu = getattr(protocol, kind.value)()
    if kind is Kind.BULK:
        protocol.apiBulkPDU.set_defaults(pdu)
        protocol.apiBulkPDU.set_max_repetitions(pdu, repetitions)
    else:
        protocol.apiPDU.set_defaults(pdu)
    protocol.apiPDU.set_request_id(pdu, request_id)
    bindings = [(oid, protocol.Null("") if value is None else protocol.Integer(value)) for oid, value in rows]
    protocol.apiPDU.set_varbinds(pdu, bindings)
    message = protocol.Message()
    protocol.apiMessage.set_defaults(message)
    protocol.apiMessage.set_community(message, community.encode())
    protocol.apiMessage.set_pdu(message, pdu)
    encoded: bytes = import_module("pyasn1.codec.ber.encoder").encode(message)
    return encoded


def decode_response(version: str, data: bytes) -> Response:
    """The response in a datagram; PacketError for whatever is none."""
    protocol = _protocol(version)
    # pysnmp and pyasn1 each have their own; garbage also reaches code of theirs that expects none.
    broken = (import_module("pyasn1.error").PyAsn1Error, import_module("pysnmp.error").PySnmpError)
    try:
        message, _rest = import_module("pyasn1.codec.ber.decoder").decode(data, asn1Spec=protocol.Message())
        pdu = protocol.apiMessage.get_pdu(message)
        if int(message["version"]) != (0 if version == "1" else 1) or not isinstance(pdu, protocol.GetResponsePDU):
            raise PacketError("another version, or no response")
        return Response(
            int(protocol.apiPDU.get_request_id(pdu)),
            Status(int(protocol.apiPDU.get_error_status(pdu))),
            int(protocol.apiPDU.get_error_index(pdu, muteErrors=True)),
            tuple((tuple(oid), _plain(value)) for oid, value in protocol.apiPDU.get_varbinds(pdu)),
        )
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


class Snmp:
    """One switch. Any thread may ask; one request at a time is under way (`_lock`): small switches drop a second one.

    `connect` and `clock` are there for tests. Nothing is sent before the first request.
    """

    def __init__(
        self,
        switch: Switch,
        connect: Callable[[str, int], Wire] = UdpWire,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.switch = switch
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._request_ids = itertools.count(random.randrange(1, 1 << 30))

    def __enter__(self) -> Snmp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the socket back; a later request opens a new one."""
        with self._lock:
            if self._wire:
                self._wire.close()
            self._wire = None

    def in_vlan(self, vlan: int) -> Snmp:
        """The same switch asked about one VLAN the way Cisco wants it, `community@vlan`; tried once only.

        Once, because a switch that knows no such community does not answer at all.
        """
        access = self.switch.snmp
        access = replace(access, read_community=f"{access.read_community}@{vlan}", retries=0)
        return Snmp(replace(self.switch, snmp=access), self._connect, self._clock)

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
            raise SnmpError(self.switch, oid, _SET_REASONS.get(response.status, refused))

    def walk(self, base: Oid) -> list[Row]:
        """Every object below `base`, in order; empty where there is none. SnmpError, also for an endless walk."""
        rows: list[Row] = []
        last, bulk = base, self.switch.snmp.version != "1"
        while len(rows) < WALK_LIMIT:
            response = self._ask(Kind.BULK if bulk else Kind.NEXT, [(last, None)])
            if response.status and bulk:
                bulk = False  # some agents fail at GETBULK only
                continue
            if response.status == Status.NO_SUCH_NAME:  # how v1 says that nothing comes after
                return rows
            self._check(response, last)
            for oid, value in response.rows:
                if oid[: len(base)] != base or value is None:
                    return rows
                if oid <= last:
                    raise SnmpError(self.switch, oid, "the switch answers in a circle: its agent is broken")
                rows.append((oid, value))
                last = oid
            if not response.rows:
                return rows
        raise SnmpError(self.switch, base, f"more than {WALK_LIMIT} rows: its agent is broken")

    def _check(self, response: Response, oid: Oid) -> None:
        if response.status:
            raise SnmpError(self.switch, oid, f"the switch answers {_words(response.status)}")

    def _ask(self, kind: Kind, rows: Sequence[Row]) -> Response:
        """Send one request and wait for its response, as often as the switch's settings say."""
        access = self.switch.snmp
        community = access.write_community if kind is Kind.SET else access.read_community
        with self._lock:
            request_id = next(self._request_ids)
            request = encode_request(access.version, community, kind, request_id, rows, repetitions=REPETITIONS)
            try:
                if self._wire is None:
                    self._wire = self._connect(str(self.switch.address), access.port)
                for _try in range(access.retries + 1):
                    # The same request id each time: a SET that is done twice does no harm here, and a late answer to
                    # the first try is as good as one to the second.
                    self._wire.send(request)
                    response = self._await(self._wire, request_id)
                    if response:
                        return response
            except ConnectionRefusedError:
                raise SnmpError(self.switch, rows[0][0], f"port {access.port} is closed: is SNMP on?") from None
            except OSError as error:
                raise SnmpError(self.switch, rows[0][0], f"cannot be reached: {error.strerror or error}") from error
        which = "write" if kind is Kind.SET else "read"
        tries = "1 try" if access.retries == 0 else f"{access.retries + 1} tries"
        silence = f"no answer from {self.switch.address} in {tries} of {access.timeout:g} s"
        raise SnmpError(
            self.switch, rows[0][0], f"{silence}: is the address right, SNMP on, and the {which} community?"
        )

    def _await(self, wire: Wire, request_id: int) -> Response | None:
        """The response to that request, None when the time of one try is over; what else arrives is passed over."""
        deadline = self._clock() + self.switch.snmp.timeout
        while (left := deadline - self._clock()) > 0:
            datagram = wire.receive(left)
            if datagram is None:
                return None
            try:
                response = decode_response(self.switch.snmp.version, datagram)
            except PacketError:
                continue
            if response.request_id == request_id:
                return response
        return None


def _words(status: Status) -> str:
    """`wrongValue` for WRONG_VALUE, as the RFC spells it."""
    first, *others = status.name.lower().split("_")
    return first + "".join(word.capitalize() for word in others)
