"""Records of switches: every type, every bad line, and what follows the power."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agentx import Cell, Kind, Oid
from lab.families import FAMILIES, POE_PORT, SYSTEM, Quirks
from lab.replay import Record, RecordError, parse_record, read_record
from tests.test_lab_families import Still

TPLINK: Oid = (1, 3, 6, 1, 4, 1, 11863, 6, 56, 1, 1, 2, 1, 1)


@pytest.mark.parametrize(
    ("line", "kind", "value"),
    [
        (".1.3.6 = INTEGER: -5", Kind.INTEGER, -5),
        ("1.3.6 = integer 5", Kind.INTEGER, 5),
        (".1.3.6 = GAUGE: 4294967295", Kind.GAUGE, 4294967295),
        (".1.3.6 = COUNTER: 7", Kind.COUNTER, 7),
        (".1.3.6 = COUNTER64: 18446744073709551615", Kind.COUNTER64, 18446744073709551615),
        (".1.3.6 = COUNTER: 4294967296", Kind.COUNTER64, 4294967296),
        (".1.3.6=TIMETICKS:1", Kind.TIME_TICKS, 1),
        ('.1.3.6 = STRING: ""', Kind.STRING, b""),
        ('.1.3.6 = STRING "a = \\"b\\" \\\\ \\r\\n # c"', Kind.STRING, b'a = "b" \\ \r\n # c'),
        ('  .1.3.6 = STRING: "Büro"  ', Kind.STRING, "Büro".encode()),
        (".1.3.6 = HEX: 00 ff 1A", Kind.STRING, b"\x00\xff\x1a"),
        (".1.3.6 = HEX:", Kind.STRING, b""),
        (".1.3.6 = OBJECTID: .1.3.6.1.4.1.9", Kind.OBJECT_ID, (1, 3, 6, 1, 4, 1, 9)),
        (".1.3.6 = IPADDRESS: 10.0.0.1", Kind.IP_ADDRESS, b"\x0a\0\0\1"),
    ],
)
def test_a_line(line: str, kind: Kind, value: object) -> None:
    assert parse_record(f"# first\n\n{line}\r\n").objects == {(1, 3, 6): (kind, value)}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hello", "found 'hello'; expected .1.3.6... = TYPE: value"),
        (".1.3.6 INTEGER: 5", "found '.1.3.6 INTEGER: 5'; expected .1.3.6... = TYPE: value"),
        (".1 = INTEGER: 5", "found the OID .1; expected 3 to 128 numbers below 4294967296"),
        (".1.3.4294967296 = INTEGER: 5", "found the OID .1.3.4294967296; expected 3 to 128 numbers below 4294967296"),
        (".1.3.6 = FLOAT: 5", "found the type 'FLOAT'; expected INTEGER, GAUGE, COUNTER, COUNTER64, "),
        (".1.3.6 = INTEGER: up(1)", "found INTEGER 'up(1)'; expected a number from -2147483648 to 2147483647"),
        (".1.3.6 = GAUGE: -1", "found GAUGE '-1'; expected a number from 0 to 4294967295"),
        (".1.3.6 = STRING: port", "found STRING port; expected it in quotes"),
        ('.1.3.6 = STRING: "a"b"', "found STRING \"a\"b\"; expected it in quotes"),
        (".1.3.6 = HEX: 0x12", "found HEX '0x12'; expected pairs of hexadecimal digits"),
        (".1.3.6 = OBJECTID: iso.3", "found OBJECTID 'iso.3'; expected numbers and dots"),
        (".1.3.6 = IPADDRESS: 10.0.0", "found IPADDRESS '10.0.0'; expected an address like 10.0.0.1"),
    ],
)  # fmt: skip
def test_a_bad_line_is_told_with_its_place(line: str, problem: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(f".1.3.5 = INTEGER: 1\n{line}", "sw.txt")
    assert str(caught.value).startswith(f"sw.txt line 2: {problem}")


def test_all_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "sw.txt"
    file.write_bytes(b".1.3.5 = INTEGER: 1\n.1.3.5 = INTEGER: 2\n\xff\n")
    with pytest.raises(RecordError) as caught:
        read_record(file)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [f"{file} line 2", f"{file} line 3"]
    with pytest.raises(RecordError, match="the record: no object in it; expected lines like"):
        parse_record("# nothing\n")


@given(st.text(max_size=40))
def test_any_text_is_a_record_or_an_error(text: str) -> None:
    with contextlib.suppress(RecordError):
        assert parse_record(text).objects


def _tplink() -> Record:
    lines = [
        f".{_dotted((*SYSTEM, 2, 0))} = OBJECTID: .1.3.6.1.4.1.11863.5.1",
        f".{_dotted((*SYSTEM, 3, 0))} = TIMETICKS: 9",
    ]
    for port, on, power, state in ((1, 1, 42, 2), (2, 0, 0, 0), (3, 1, 0, 3)):
        for column, value in ((2, on), (7, power), (10, 0), (11, state)):
            lines.append(f".{_dotted((*TPLINK, column, port))} = INTEGER: {value}")
    return parse_record("\n".join(lines))


def _dotted(oid: Oid) -> str:
    return ".".join(map(str, oid))


def test_the_vendor_is_known_by_its_number() -> None:
    record = _tplink()
    assert record.family is FAMILIES["tplink"]
    assert (record.ports(), record.off(), record.index(2)) == ([1, 2, 3], [2], (2,))
    assert record.roots() == [(1, 3, 6, 1, 2, 1, 1), (1, 3, 6, 1, 4, 1, 11863)]
    stranger = parse_record(
        f".{_dotted((*SYSTEM, 2, 0))} = OBJECTID: .1.3.6.1.4.1.99999.1\n.1.3.6.1.6.3.1 = INTEGER: 1"
    )
    assert (stranger.family, stranger.ports()) == (FAMILIES["standard"], [])
    assert stranger.roots() == [(1, 3, 6, 1, 2, 1, 1)]
    assert parse_record(".1.2.3 = INTEGER: 1").roots() == [(1, 2)]
    assert parse_record(f".{_dotted((*POE_PORT, 3, 1, 1))} = GAUGE: 1").ports() == [], "no INTEGER switches anything"


def test_power_is_followed_by_what_shows_it() -> None:
    state = Still()
    cells = _tplink().cells(state)

    def row(port: int) -> list[object]:
        return [cells[*TPLINK, column, port].read() for column in (2, 7, 10, 11)]

    assert row(1) == [1, 42, 0, 2]
    assert _set(cells[*TPLINK, 2, 1], 0) == 0
    assert row(1) == [0, 0, 0, 0]
    assert _set(cells[*TPLINK, 2, 1], 1) == 0
    assert row(1) == [1, 42, 0, 2]
    assert row(3) == [1, 0, 0, 3], "an overload that was recorded stays"
    assert cells[*SYSTEM, 3, 0].read() == 1234
    assert state.orders == [(1, False), (1, True)]
    assert cells[*TPLINK, 2, 1].check(Kind.INTEGER, 2)
    assert cells[*TPLINK, 7, 1].check(Kind.INTEGER, 2)


def _set(cell: Cell, value: int) -> int:
    assert cell.write
    return cell.write(value)


def test_other_integers_can_be_set_unless_the_switch_refuses_or_does_nothing() -> None:
    text = f".{_dotted((*POE_PORT, 3, 1, 1))} = INTEGER: 1\n.{_dotted((*POE_PORT, 7, 1, 1))} = INTEGER: 3"
    priority = (*POE_PORT, 7, 1, 1)
    cell = parse_record(text).cells(Still())[priority]
    assert (_set(cell, 1), cell.read()) == (0, 1)
    cell = parse_record(text).cells(Still(Quirks(does_nothing=True)))[priority]
    assert (_set(cell, 1), cell.read()) == (0, 3)
    cells = parse_record(text).cells(Still(Quirks(refusal=5)))
    assert [cells[oid].check(Kind.INTEGER, 1) for oid in (priority, (*POE_PORT, 3, 1, 1))] == [5, 5]


def test_what_was_on_keeps_its_own_value() -> None:
    text = f".{_dotted((*SYSTEM, 2, 0))} = OBJECTID: .1.3.6.1.4.1.9.1.1\n.1.3.6.1.4.1.9.9.402.1.2.1.1.1.1 = INTEGER: 2"
    cell = parse_record(text).cells(Still())[1, 3, 6, 1, 4, 1, 9, 9, 402, 1, 2, 1, 1, 1, 1]
    assert cell.read() == 2
    assert (_set(cell, 4), cell.read(), _set(cell, 3), cell.read()) == (0, 4, 0, 3)
