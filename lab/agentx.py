"""AgentX (RFC 2741): what net-snmp's snmpd asks of the tables behind it, and the objects those tables are made of.

`Agent` answers one snmpd over one connection; it knows OIDs and values and no switch. AgentX rather than `pass_persist`
because a table may then be in a context of its own (the bridge of one VLAN), a refusal can be any error of RFC 3416,
and no program runs for each table.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

log = logging.getLogger("piman.lab.agentx")

Oid = tuple[int, ...]
Value = int | bytes | Oid

# error-status of RFC 3416, as far as a table gives it
NO_ERROR, GEN_ERR, NO_ACCESS, WRONG_TYPE, WRONG_VALUE, AUTHORIZATION_ERROR, NOT_WRITABLE = 0, 5, 6, 7, 10, 16, 17

_TIMEOUT = 5.0
_HEADER = struct.Struct("!BBBxIIII")
_NETWORK_ORDER, _CONTEXT = 0x10, 0x08
_INTERNET: Oid = (1, 3, 6, 1)


class PacketError(ValueError):
    """Bytes that are no AgentX."""


class Pdu(IntEnum):
    """Section 6.1."""

    OPEN = 1
    CLOSE = 2
    REGISTER = 3
    GET = 5
    GET_NEXT = 6
    GET_BULK = 7
    TEST_SET = 8
    COMMIT_SET = 9
    UNDO_SET = 10
    CLEANUP_SET = 11
    PING = 13
    RESPONSE = 18


class Kind(IntEnum):
    """The types of values, section 5.4."""

    INTEGER = 2
    STRING = 4
    NULL = 5
    OBJECT_ID = 6
    IP_ADDRESS = 64
    COUNTER = 65
    GAUGE = 66
    TIME_TICKS = 67
    COUNTER64 = 70
    NO_SUCH_OBJECT = 128
    NO_SUCH_INSTANCE = 129
    END_OF_MIB_VIEW = 130


_NUMBERS = {Kind.INTEGER: "!i", Kind.COUNTER: "!I", Kind.GAUGE: "!I", Kind.TIME_TICKS: "!I", Kind.COUNTER64: "!Q"}
_TEXTS = {Kind.STRING, Kind.IP_ADDRESS}


@dataclass(frozen=True, slots=True)
class Cell:
    """One object: its type, how to read it and, where it may be set, which values it takes and how to set it.

    `write` answers with an error-status. `refusal` is what a set of one without `write` gets.
    """

    kind: Kind
    read: Callable[[], Value]
    write: Callable[[int], int] | None = None
    takes: frozenset[int] | None = None  # None: every INTEGER
    refusal: int = NOT_WRITABLE

    def check(self, kind: Kind, value: Value | None) -> int:
        """The error-status of a set to this value, before anything is done."""
        if self.write is None:
            return self.refusal
        if kind is not Kind.INTEGER or not isinstance(value, int):
            return WRONG_TYPE
        return NO_ERROR if self.takes is None or value in self.takes else WRONG_VALUE


class Mib:
    """Objects in order. Never changes: a table that does is made anew."""

    def __init__(self, cells: Mapping[Oid, Cell]) -> None:
        self._cells = dict(cells)
        self._order = sorted(self._cells)

    def find(self, oid: Oid) -> Cell | None:
        return self._cells.get(oid)

    def after(self, oid: Oid, *, include: bool = False) -> Oid | None:
        """The next OID, or this one itself."""
        place = (bisect.bisect_left if include else bisect.bisect_right)(self._order, oid)
        return self._order[place] if place < len(self._order) else None

    def has_column(self, oid: Oid) -> bool:
        """Whether there are objects that differ in the last number only."""
        following = self.after(oid[:-1])
        return following is not None and following[: len(oid) - 1] == oid[:-1]


# ---------------------------------------------------------------------------------------------------------- the bytes


def encode_oid(oid: Oid, include: bool = False) -> bytes:
    """Section 5.1; without the abbreviation of 1.3.6.1."""
    return struct.pack(f"!BBBx{len(oid)}I", len(oid), 0, include, *oid)


def encode_octets(octets: bytes) -> bytes:
    """Section 5.3: padded to whole words."""
    return struct.pack("!I", len(octets)) + octets + bytes(-len(octets) % 4)


def encode_value(oid: Oid, kind: Kind, value: Value | None) -> bytes:
    """A VarBind, section 5.4."""
    head = struct.pack("!Hxx", kind) + encode_oid(oid)
    if kind in _NUMBERS and isinstance(value, int):
        return head + struct.pack(_NUMBERS[kind], value)
    if kind in _TEXTS and isinstance(value, bytes):
        return head + encode_octets(value)
    if kind is Kind.OBJECT_ID and isinstance(value, tuple):
        return head + encode_oid(value)
    return head


def encode(pdu: Pdu, session: int, transaction: int, packet: int, payload: bytes = b"", context: str = "") -> bytes:
    """A whole PDU in network byte order."""
    flags = _NETWORK_ORDER
    if context:
        flags |= _CONTEXT
        payload = encode_octets(context.encode()) + payload
    return _HEADER.pack(1, pdu, flags, session, transaction, packet, len(payload)) + payload


class Reader:
    """What is left of a payload. Every method takes from the front; PacketError where there is not enough."""

    def __init__(self, payload: bytes) -> None:
        self._rest = payload

    def __bool__(self) -> bool:
        return bool(self._rest)

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise PacketError(f"{count} bytes wanted, {len(self._rest)} there")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def numbers(self, form: str) -> tuple[int, ...]:
        form = f"!{form}"
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def oid(self) -> tuple[Oid, bool]:
        """An OID and its "include" field."""
        count, prefix, include = self.numbers("BBBx")
        oid = self.numbers(f"{count}I")
        return ((*_INTERNET, prefix, *oid) if prefix else oid), bool(include)

    def octets(self) -> bytes:
        (length,) = self.numbers("I")
        octets = self.take(length)
        self.take(-length % 4)
        return octets

    def binding(self) -> tuple[Oid, Kind, Value | None]:
        """A VarBind."""
        (number,) = self.numbers("Hxx")
        try:
            kind = Kind(number)
        except ValueError as error:
            raise PacketError(f"no type {number}") from error
        oid, _ = self.oid()
        if kind in _NUMBERS:
            return oid, kind, self.numbers(_NUMBERS[kind][1:])[0]
        if kind in _TEXTS:
            return oid, kind, self.octets()
        return oid, kind, self.oid()[0] if kind is Kind.OBJECT_ID else None


# -------------------------------------------------------------------------------------------------------- the answers


class Tables:
    """The answers to snmpd's questions; `table(context)` gives the objects of now. One thread uses it."""

    def __init__(self, table: Callable[[str], Mib]) -> None:
        self._table = table
        self._pending: list[tuple[Cell, int]] = []  # the set that is being made

    def answer(self, pdu: Pdu, context: str, rest: Reader) -> bytes | None:
        """The payload of the response after its sysUpTime; None where none is due."""
        reads = {Pdu.GET: _get, Pdu.GET_NEXT: _get_next, Pdu.GET_BULK: _get_bulk}
        if pdu in reads:
            return _response(rows=reads[pdu](self._table(context), rest))
        if pdu is Pdu.TEST_SET:
            return _response(*self._test(self._table(context), rest))
        if pdu is Pdu.COMMIT_SET:
            return _response(*self._commit())
        if pdu is Pdu.CLEANUP_SET:
            self._pending.clear()
            return None
        return _response()

    def _test(self, table: Mib, rest: Reader) -> tuple[int, int]:
        self._pending.clear()
        place = 0
        while rest:
            place += 1
            oid, kind, value = rest.binding()
            cell = table.find(oid)
            status = cell.check(kind, value) if cell else NOT_WRITABLE
            if status or cell is None:
                return status, place
            self._pending.append((cell, value if isinstance(value, int) else 0))
        return NO_ERROR, 0

    def _commit(self) -> tuple[int, int]:
        for place, (cell, value) in enumerate(self._pending, 1):
            status = cell.write(value) if cell.write else NOT_WRITABLE
            if status:
                return status, place
        return NO_ERROR, 0


def _get(table: Mib, rest: Reader) -> bytes:
    rows = b""
    while rest:
        oid, _ = rest.oid()
        rest.oid()
        cell = table.find(oid)
        absent = Kind.NO_SUCH_INSTANCE if table.has_column(oid) else Kind.NO_SUCH_OBJECT
        rows += encode_value(oid, cell.kind, cell.read()) if cell else encode_value(oid, absent, None)
    return rows


def _get_next(table: Mib, rest: Reader) -> bytes:
    rows = b""
    while rest:
        row, _ = _next(table, *rest.oid(), rest.oid()[0])
        rows += row
    return rows


def _get_bulk(table: Mib, rest: Reader) -> bytes:
    once, repetitions = rest.numbers("HH")
    ranges = []
    while rest:
        start, include = rest.oid()
        ranges.append((start, include, rest.oid()[0]))
    rows = b"".join(_next(table, *each)[0] for each in ranges[:once])
    ranges = ranges[once:]
    for _ in range(repetitions if ranges else 0):
        for place, (start, include, end) in enumerate(ranges):
            row, found = _next(table, start, include, end)
            rows += row
            ranges[place] = (found or start, found is None and include, end)
    return rows


def _next(table: Mib, start: Oid, include: bool, end: Oid) -> tuple[bytes, Oid | None]:
    found = table.after(start, include=include)
    cell = table.find(found) if found and (not end or found < end) else None
    if found is None or cell is None:
        return encode_value(start, Kind.END_OF_MIB_VIEW, None), None
    return encode_value(found, cell.kind, cell.read()), found


def _response(status: int = NO_ERROR, index: int = 0, rows: bytes = b"") -> bytes:
    return struct.pack("!HH", status, index) + rows


# ------------------------------------------------------------------------------------------------------ the connection


class Agent:
    """One connection to a snmpd, and the thread that answers it.

    Usable when the constructor returns; it raises OSError, or RuntimeError with what snmpd refused. `roots` are the
    registered parts of the tree, by context.
    """

    def __init__(self, path: Path, roots: Mapping[str, Iterable[Oid]], table: Callable[[str], Mib], name: str) -> None:
        self._tables, self._name = Tables(table), name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._packet = 0
        try:
            self._socket.settimeout(_TIMEOUT)
            _connect(self._socket, path)
            self._session = 0
            opening = struct.pack("!Bxxx", int(_TIMEOUT)) + encode_oid(()) + encode_octets(name.encode())
            self._session = self._request(Pdu.OPEN, opening)
            for context, bases in roots.items():
                for base in bases:
                    self._request(Pdu.REGISTER, struct.pack("!BBBx", 0, 127, 0) + encode_oid(base), context)
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"lab-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Any number of times."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_TIMEOUT)
        self._socket.close()

    def _request(self, pdu: Pdu, payload: bytes, context: str = "") -> int:
        """Ask snmpd for something; the session that its response is for."""
        self._packet += 1
        self._socket.sendall(encode(pdu, self._session, 0, self._packet, payload, context))
        _, session, _, _, rest = self._receive()
        _, status, _ = rest.numbers("IHH")
        if status:
            raise RuntimeError(f"snmpd refuses {pdu.name} of {self._name}: error {status}")
        return session

    def _receive(self) -> tuple[int, int, int, int, Reader]:
        """Type, session, transaction, packet and payload, context still in front; EOFError at the end."""
        head = self._read(_HEADER.size)
        _, pdu, flags, session, transaction, packet, length = _HEADER.unpack(head)
        if not flags & _NETWORK_ORDER:  # the sender chooses, section 6.1; a master uses ours
            raise PacketError("AgentX in the other byte order")
        reader = Reader(self._read(length))
        context = reader.octets() if flags & _CONTEXT else b""
        self._context = context.decode("latin-1")
        return pdu, session, transaction, packet, reader

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            got = self._socket.recv(count - len(data))
            if not got:
                raise EOFError
            data += got
        return data

    def _run(self) -> None:
        try:
            while True:
                number, session, transaction, packet, rest = self._receive()
                pdu = Pdu(number)
                if pdu in {Pdu.RESPONSE, Pdu.CLOSE}:
                    continue
                answer = self._tables.answer(pdu, self._context, rest)
                if answer is not None:
                    payload = bytes(4) + answer
                    self._socket.sendall(encode(Pdu.RESPONSE, session, transaction, packet, payload))
        except (OSError, EOFError):  # one of us has ended
            pass
        except Exception:
            log.exception("%s could not answer", self._name)
        finally:
            # snmpd is told at once that nobody answers any more, rather than by its timeouts.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _connect(connection: socket.socket, path: Path) -> None:
    # By way of the descriptor: a socket's path has room for 107 bytes only, and our directory may be deep.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
