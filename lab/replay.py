"""A recorded switch: the text file, what is in it, and the objects that play it again.

One object a line, `.1.3.6.1.2.1.1.2.0 = OBJECTID: .1.3.6.1.4.1.9.1.516`; `#` begins a comment. The types are INTEGER,
GAUGE, COUNTER, COUNTER64, TIMETICKS, STRING "..." (with backslash before quotes, backslashes, n, r, t), HEX aa bb,
OBJECTID, IPADDRESS. Knows no switch of its own: which objects switch power is known from lab.families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from lab.agentx import NO_ERROR, Cell, Kind, Oid, Value
from lab.families import DELIVERING, DISABLED, FAMILIES, SYSTEM, Column, Family, State

_LINE = re.compile(r"(?P<oid>\.?\d+(\.\d+)*)\s*=\s*(?P<kind>[A-Za-z0-9]+)\s*:?\s*(?P<value>.*)", re.DOTALL)
_NUMBERS = {
    "INTEGER": (Kind.INTEGER, -(2**31), 2**31 - 1),
    "GAUGE": (Kind.GAUGE, 0, 2**32 - 1),
    "COUNTER": (Kind.COUNTER, 0, 2**64 - 1),
    "COUNTER64": (Kind.COUNTER64, 0, 2**64 - 1),
    "TIMETICKS": (Kind.TIME_TICKS, 0, 2**32 - 1),
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_EXPECTED = f"{', '.join(_NUMBERS)}, STRING, HEX, OBJECTID or IPADDRESS"


class RecordError(ValueError):
    """A line that is none; `str()` says file, line and what was expected."""


@dataclass(frozen=True, slots=True)
class _Switchable:
    """One column of the record that switches power, and the columns of the same row that follow."""

    admin: Oid
    column: Column
    followers: tuple[tuple[Oid, Column], ...]
    index: Oid


class Record:
    """The objects of a file, and which of them are the power of the ports 1, 2 ... in the order of their indexes."""

    def __init__(self, objects: dict[Oid, tuple[Kind, Value]]) -> None:
        self.objects = objects
        self.family = _family(objects)
        self._rows: dict[int, list[_Switchable]] = {}
        for table in self._tables():
            for number, each in enumerate(table, 1):
                self._rows.setdefault(number, []).append(each)

    def ports(self) -> list[int]:
        """The numbers of the ports that have PoE."""
        return sorted(self._rows)

    def off(self) -> list[int]:
        """Those of them that were off."""
        rows = {number: rows[0] for number, rows in self._rows.items()}
        return sorted(number for number, row in rows.items() if self.objects[row.admin][1] == row.column.values[1])

    def index(self, number: int) -> Oid:
        """The PoE index of a port; KeyError."""
        return self._rows[number][0].index

    def roots(self) -> list[Oid]:
        """The parts of the tree it has something in."""
        # snmpd keeps 1.3.6.1.6.3 (its own agent, users, views) for itself.
        shown = [oid for oid in self.objects if oid[:6] != (1, 3, 6, 1, 6, 3)]
        return sorted({oid[:7] if len(oid) > 7 else oid[:-1] for oid in shown})

    def cells(self, state: State) -> dict[Oid, Cell]:
        """The objects as they are now: an INTEGER may be set; what belongs to a port's power follows `state`."""
        values = {oid: value for oid, (_kind, value) in self.objects.items()}
        cells = {oid: _cell(oid, kind, values, state) for oid, (kind, _value) in self.objects.items()}
        for number, rows in self._rows.items():
            for row in rows:
                kind = self.objects[row.admin][0]
                cells[row.admin] = _admin_cell(row.column, number, kind, values[row.admin], state)
                for oid, column in row.followers:
                    cells[oid] = _follower(column, number, *self.objects[oid], state)
        if (*SYSTEM, 3, 0) in self.objects:
            cells[*SYSTEM, 3, 0] = Cell(Kind.TIME_TICKS, lambda: int(state.uptime() * 100) & 0xFFFFFFFF)
        return cells

    def _tables(self) -> list[list[_Switchable]]:
        tables = dict(_all_tables(self.family))
        admins = [(entry, column) for entry, columns in tables.items() for column in columns if column.what == "admin"]
        shown = [
            ((*entry, column.number), column)
            for entry, columns in tables.items()
            for column in columns
            if column.what in {"state", "power"}
        ]
        found = []
        for entry, admin in admins:
            base = (*entry, admin.number)
            rows = []
            for oid in sorted(oid for oid in self.objects if oid[: len(base)] == base):
                if self.objects[oid][0] is Kind.INTEGER:
                    index = oid[len(base) :]
                    # In the same row or another table's, which may go by the port alone.
                    beside = [((*column, *tail), each) for column, each in shown for tail in (index, index[-1:])]
                    followers = tuple((oid, each) for oid, each in beside if oid in self.objects)
                    rows.append(_Switchable(oid, admin, followers, index))
            if rows:
                found.append(rows)
        return found


def read_record(path: Path) -> Record:
    """RecordError with all bad lines; OSError."""
    return parse_record(path.read_text(encoding="utf-8", errors="replace"), str(path))


def parse_record(text: str, name: str = "the record") -> Record:
    """RecordError with all bad lines, each as `file line 7: ...`."""
    objects: dict[Oid, tuple[Kind, Value]] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        try:
            oid, kind, value = _parse_line(bare)
        except ValueError as error:
            problems.append(f"{name} line {number}: {error}")
            continue
        if oid in objects:
            problems.append(f"{name} line {number}: .{'.'.join(map(str, oid))} is there twice")
        objects[oid] = (kind, value)
    if not problems and not objects:
        problems.append(f'{name}: no object in it; expected lines like .1.3.6.1.2.1.1.5.0 = STRING: "sw1"')
    if problems:
        raise RecordError("\n".join(problems))
    return Record(objects)


def _parse_line(line: str) -> tuple[Oid, Kind, Value]:
    found = _LINE.fullmatch(line)
    if not found:
        raise ValueError(f"found {line[:40]!r}; expected .1.3.6... = TYPE: value")
    oid = _oid(found["oid"])
    if not 2 < len(oid) <= 128 or any(part >= 2**32 for part in oid):
        raise ValueError(f"found the OID {found['oid']}; expected 3 to 128 numbers below 4294967296")
    return (oid, *_value(found["kind"].upper(), found["value"].strip()))


def _value(kind: str, text: str) -> tuple[Kind, Value]:
    if kind in _NUMBERS:
        number, least, most = _NUMBERS[kind]
        if not re.fullmatch(r"-?\d{1,20}", text) or not least <= int(text) <= most:
            raise ValueError(f"found {kind} {text[:40]!r}; expected a number from {least} to {most}")
        return Kind.COUNTER64 if number is Kind.COUNTER and int(text) >= 2**32 else number, int(text)
    makers: dict[str, Callable[[str], tuple[Kind, Value]]] = {
        "STRING": _string,
        "HEX": _hex,
        "OBJECTID": _object_id,
        "IPADDRESS": _ip_address,
    }
    if kind not in makers:
        raise ValueError(f"found the type {kind[:20]!r}; expected {_EXPECTED}")
    return makers[kind](text)


def _string(text: str) -> tuple[Kind, Value]:
    found = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', text)
    if not found:
        raise ValueError(f'found STRING {text[:40]}; expected it in quotes, with \\" for one inside')
    plain = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), found[1])
    return Kind.STRING, plain.encode("utf-8")


def _hex(text: str) -> tuple[Kind, Value]:
    try:
        return Kind.STRING, bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"found HEX {text[:40]!r}; expected pairs of hexadecimal digits") from None


def _object_id(text: str) -> tuple[Kind, Value]:
    if not re.fullmatch(r"\.?\d{1,10}(\.\d{1,10})*", text):
        raise ValueError(f"found OBJECTID {text[:40]!r}; expected numbers and dots")
    return Kind.OBJECT_ID, _oid(text)


def _ip_address(text: str) -> tuple[Kind, Value]:
    try:
        return Kind.IP_ADDRESS, IPv4Address(text).packed
    except AddressValueError:
        raise ValueError(f"found IPADDRESS {text[:40]!r}; expected an address like 10.0.0.1") from None


def _oid(text: str) -> Oid:
    return tuple(int(part) for part in text.lstrip(".").split("."))


def _family(objects: dict[Oid, tuple[Kind, Value]]) -> Family:
    """The one whose sysObjectID has the most numbers in common with the record's."""
    _, identity = objects.get((*SYSTEM, 2, 0), (Kind.OBJECT_ID, ()))

    def common(family: Family) -> int:
        pairs = zip(family.object_id, identity if isinstance(identity, tuple) else (), strict=False)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), len(family.object_id))

    best = max(FAMILIES.values(), key=common)
    return best if common(best) > 6 else FAMILIES["standard"]


def _all_tables(family: Family) -> Iterable[tuple[Oid, tuple[Column, ...]]]:
    """The family's tables, and RFC 3621's in any case."""
    tables = {table.entry: table.columns for table in FAMILIES["standard"].tables}
    tables |= {table.entry: table.columns for table in family.tables}
    return tables.items()


def _cell(oid: Oid, kind: Kind, values: dict[Oid, Value], state: State) -> Cell:
    def write(value: int) -> int:
        if not state.quirks.does_nothing:
            values[oid] = value
        return NO_ERROR

    may = kind is Kind.INTEGER and not state.quirks.refusal
    return Cell(kind, lambda: values[oid], write if may else None, None, state.quirks.refusal or 17)


def _admin_cell(column: Column, number: int, kind: Kind, recorded: Value, state: State) -> Cell:
    """What was on keeps the very value that the record has for it."""
    on, off = (value for value in column.values if isinstance(value, int))
    first = recorded if isinstance(recorded, int) and recorded != off else on

    def read() -> int:
        return (state.word(number) or first) if state.is_on(number) else off

    def write(value: int) -> int:
        state.switch_power(number, value != off, value)
        return NO_ERROR

    may = column.writable and not state.quirks.refusal
    return Cell(kind, read, write if may else None, frozenset((on, off, *column.also)), state.quirks.refusal or 17)


def _follower(column: Column, number: int, kind: Kind, recorded: Value, state: State) -> Cell:
    """The detection goes with the power; a port that gives none takes none."""

    def read() -> Value:
        detection = state.detection(number)
        if column.what == "power":
            return recorded if detection == DELIVERING else 0
        value = column.values[detection - 1]
        # A fault that was recorded stays until somebody switches the port.
        return value if detection == DISABLED or recorded in column.values else recorded

    return Cell(kind, read)
