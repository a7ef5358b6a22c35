"""AgentX without a snmpd: bytes, and the answers of tables. With snmpd: tests/peers."""

from __future__ import annotations

import bisect
import contextlib
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agentx import (
    GEN_ERR,
    NOT_WRITABLE,
    WRONG_TYPE,
    WRONG_VALUE,
    Agent,
    Cell,
    Kind,
    Mib,
    Oid,
    PacketError,
    Pdu,
    Reader,
    Tables,
    Value,
    encode,
    encode_octets,
    encode_oid,
    encode_value,
)

BASE: Oid = (1, 3, 6, 1, 2, 1, 105)


class Shelf:
    """A table of three objects, of which the second may be set to 1, 2 and 13, and fails at 13."""

    def __init__(self) -> None:
        self.value = 1
        cells = {
            (*BASE, 1, 1): Cell(Kind.STRING, lambda: b"port"),
            (*BASE, 1, 2): Cell(Kind.INTEGER, lambda: self.value, self.write, frozenset({1, 2, 13})),
            (*BASE, 2, 1): Cell(Kind.OBJECT_ID, lambda: (0, 0), refusal=GEN_ERR),
        }
        self.tables = Tables(lambda _context: Mib(cells))

    def write(self, value: int) -> int:
        if value == 13:
            return GEN_ERR
        self.value = value
        return 0

    def ask(self, pdu: Pdu, payload: bytes = b"") -> tuple[int, int, list[tuple[Oid, Kind, Value | None]]]:
        answer = self.tables.answer(pdu, "", Reader(payload))
        assert answer is not None
        reader = Reader(answer)
        status, index = reader.numbers("HH")
        rows = []
        while reader:
            rows.append(reader.binding())
        return status, index, rows


def span(start: Oid, end: Oid = (), include: bool = False) -> bytes:
    return encode_oid(start, include) + encode_oid(end)


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        (Kind.INTEGER, -2, b"\xff\xff\xff\xfe"),
        (Kind.GAUGE, 4_000_000_000, b"\xee\x6b\x28\x00"),
        (Kind.COUNTER64, 1 << 40, b"\0\0\1\0\0\0\0\0"),
        (Kind.STRING, b"abcde", b"\0\0\0\5abcde\0\0\0"),
        (Kind.IP_ADDRESS, b"\x0a\0\0\1", b"\0\0\0\4\x0a\0\0\1"),
        (Kind.OBJECT_ID, (1, 3), b"\2\0\0\0\0\0\0\1\0\0\0\3"),
        (Kind.NO_SUCH_INSTANCE, None, b""),
    ],
)
def test_values(kind: Kind, value: Value | None, data: bytes) -> None:
    encoded = encode_value((1, 9), kind, value)
    assert encoded == struct.pack("!HxxBBBxII", kind, 2, 0, 0, 1, 9) + data
    assert Reader(encoded).binding() == ((1, 9), kind, value)


def test_the_abbreviation_of_internet_is_understood() -> None:
    assert Reader(b"\1\2\1\0\0\0\0\5").oid() == ((1, 3, 6, 1, 2, 5), True)


def test_a_context_goes_before_the_payload() -> None:
    packet = encode(Pdu.GET, 1, 2, 3, b"rest", "vlan-7")
    assert packet == b"\1\5\x18\0" + struct.pack("!IIII", 1, 2, 3, 16) + b"\0\0\0\6vlan-7\0\0rest"


@given(st.binary(max_size=60))
def test_any_bytes_are_a_binding_or_a_packet_error(data: bytes) -> None:
    with contextlib.suppress(PacketError):
        Reader(data).binding()


def test_gets() -> None:
    status, index, rows = Shelf().ask(Pdu.GET, span((*BASE, 1, 1)) + span((*BASE, 1, 9)) + span((*BASE, 7, 1)))
    assert (status, index) == (0, 0)
    assert rows == [
        ((*BASE, 1, 1), Kind.STRING, b"port"),
        ((*BASE, 1, 9), Kind.NO_SUCH_INSTANCE, None),
        ((*BASE, 7, 1), Kind.NO_SUCH_OBJECT, None),
    ]


def test_get_next_stops_at_its_end_and_may_include_its_start() -> None:
    _, _, rows = Shelf().ask(
        Pdu.GET_NEXT,
        span((*BASE, 1, 1)) + span((*BASE, 1, 1), include=True) + span((*BASE, 1, 2), (*BASE, 2)) + span((*BASE, 2, 1)),
    )
    assert [(row[0], row[1]) for row in rows] == [
        ((*BASE, 1, 2), Kind.INTEGER),
        ((*BASE, 1, 1), Kind.STRING),
        ((*BASE, 1, 2), Kind.END_OF_MIB_VIEW),
        ((*BASE, 2, 1), Kind.END_OF_MIB_VIEW),
    ]


def test_get_bulk_repeats_what_is_to_be_repeated() -> None:
    payload = struct.pack("!HH", 1, 3) + span((*BASE, 1, 1)) + span((*BASE, 1, 1))
    _, _, rows = Shelf().ask(Pdu.GET_BULK, payload)
    assert [row[0][-2:] for row in rows] == [(1, 2), (1, 2), (2, 1), (2, 1)]
    assert rows[-1][1] is Kind.END_OF_MIB_VIEW
    assert Shelf().ask(Pdu.GET_BULK, struct.pack("!HH", 1, 3) + span(BASE))[2][0][0] == (*BASE, 1, 1)


@pytest.mark.parametrize(
    ("oid", "kind", "value", "status"),
    [
        ((*BASE, 1, 2), Kind.INTEGER, 2, 0),
        ((*BASE, 1, 2), Kind.INTEGER, 3, WRONG_VALUE),
        ((*BASE, 1, 2), Kind.STRING, b"on", WRONG_TYPE),
        ((*BASE, 1, 1), Kind.INTEGER, 2, NOT_WRITABLE),
        ((*BASE, 2, 1), Kind.INTEGER, 2, GEN_ERR),
        ((*BASE, 3, 1), Kind.INTEGER, 2, NOT_WRITABLE),
    ],
)
def test_a_set_is_tested_first(oid: Oid, kind: Kind, value: Value, status: int) -> None:
    shelf = Shelf()
    first = encode_value((*BASE, 1, 2), Kind.INTEGER, 2)
    assert shelf.ask(Pdu.TEST_SET, first + encode_value(oid, kind, value))[:2] == (status, 2 if status else 0)
    assert shelf.value == 1, "nothing is set before all of it may be"
    assert shelf.tables.answer(Pdu.CLEANUP_SET, "", Reader(b"")) is None
    assert shelf.ask(Pdu.COMMIT_SET) == (0, 0, [])
    assert shelf.value == 1, "what was cleaned up is forgotten"


def test_a_set_is_done_or_says_why_not() -> None:
    shelf = Shelf()
    shelf.ask(Pdu.TEST_SET, encode_value((*BASE, 1, 2), Kind.INTEGER, 2))
    assert shelf.ask(Pdu.COMMIT_SET)[0] == 0
    assert shelf.value == 2
    shelf.ask(Pdu.TEST_SET, encode_value((*BASE, 1, 2), Kind.INTEGER, 13))
    assert shelf.ask(Pdu.COMMIT_SET)[:2] == (GEN_ERR, 1)
    assert shelf.ask(Pdu.UNDO_SET) == (0, 0, [])


@given(
    st.sets(st.lists(st.integers(0, 20), min_size=1, max_size=3).map(tuple)), st.lists(st.integers(0, 20), max_size=4)
)
def test_after_is_the_least_greater_one(tails: set[tuple[int, ...]], start: list[int]) -> None:
    cells = {(*BASE, *tail): Cell(Kind.INTEGER, lambda: 1) for tail in tails}
    order, oid = sorted(cells), (*BASE, *start)
    table = Mib(cells)
    expected = order[bisect.bisect_right(order, oid) :]
    assert table.after(oid) == (expected[0] if expected else None)
    assert table.after(oid, include=True) == (oid if oid in cells else table.after(oid))


class Master:
    """Plays snmpd: answers with `status` to each of the first requests, then asks."""

    def __init__(self, folder: Path, status: int) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        handle = os.open(folder, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{handle}/agentx")
        os.close(handle)
        self.listener.listen()
        self.status = status
        self.heard: list[int] = []
        self.connection: socket.socket | None = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        self.connection, _ = self.listener.accept()
        for _ in range(2):
            head = self.connection.recv(20, socket.MSG_WAITALL)
            if len(head) < 20:
                return
            (length,) = struct.unpack("!16xI", head)
            self.connection.recv(length, socket.MSG_WAITALL)
            self.heard.append(head[1])
            self.send(encode(Pdu.RESPONSE, 7, 0, 1, struct.pack("!IHH", 0, self.status, 0)))

    def send(self, data: bytes) -> None:
        assert self.connection
        self.connection.sendall(data)

    def close(self) -> None:
        self.thread.join()
        self.listener.close()
        if self.connection:
            self.connection.close()


def test_an_agent_that_is_refused_says_so(tmp_path: Path) -> None:
    master = Master(tmp_path, 256)
    with pytest.raises(RuntimeError, match="snmpd refuses OPEN of sw: error 256"):
        Agent(tmp_path / "agentx", {"": [BASE]}, lambda _context: Mib({}), "sw")
    master.close()


def test_an_agent_answers_until_something_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def table(context: str) -> Mib:
        if context:
            raise KeyError(context)
        return Mib({(*BASE, 1): Cell(Kind.INTEGER, lambda: 5)})

    folder = tmp_path / ("deep " * 30)  # too long for a socket's path
    folder.mkdir()
    master = Master(folder, 0)
    agent = Agent(folder / "agentx", {"": [BASE]}, table, "sw")
    master.thread.join()
    assert master.heard == [Pdu.OPEN, Pdu.REGISTER]
    master.send(encode(Pdu.GET, 7, 8, 9, span((*BASE, 1))))
    expected = encode(Pdu.RESPONSE, 7, 8, 9, bytes(8) + encode_value((*BASE, 1), Kind.INTEGER, 5))
    assert master.connection
    assert master.connection.recv(len(expected), socket.MSG_WAITALL) == expected
    master.send(encode(Pdu.RESPONSE, 7, 8, 9))  # nobody asked
    master.send(encode(Pdu.GET, 7, 8, 10, span((*BASE, 1)), "vlan-9"))
    assert master.connection.recv(1) == b"", "it ends, and snmpd knows"
    agent.close()
    agent.close()
    assert "sw could not answer" in caplog.text
    master.close()
    assert encode_octets(b"") == bytes(4)
