"""Rows of measurements packed by column into few bytes, and back; means of them over spans. Pure: no SQL, no clock.

A block holds the times and, for each metric that was measured, one column, or three of a mean, of how far the lowest
value is below it and the highest above it. A column is whole numbers (multiples of the metric's resolution), as they
are or as their first or second differences, whichever packs best: what stays the same or grows evenly costs 4 bytes.

    block     count (2 bytes), then columns: key (1), size (4), data
    column    form (1), first numbers (varints), presence bits where a value is missing, packed differences
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from monitoring.metrics import METRICS, Sample

# What a metric is called in a block. Blocks are kept for a year: never change a number, never give one again.
CODES: Mapping[str, int] = {
    "cpu_percent": 1,
    "memory_percent": 2,
    "disk_percent": 3,
    "num_pids": 4,
    "temperature": 5,
    "load1": 6,
    "uptime": 7,
    "under_voltage": 8,
    "under_voltage_seen": 9,
    "throttled": 10,
    "throttled_seen": 11,
    "clock_offset": 12,
    "card_errors": 13,
    "up": 14,
    "ping_ms": 15,
    "watts": 16,
}
MAX_ROWS = 16_384  # an hour polled every second has 3600

Parts = tuple[float, float, float]  # mean, low, high
Row = tuple[float, Parts]  # when, and what was measured: a Sample is slower to make than to draw

_TIMES = 0  # the key of the times
_HEAD, _ENTRY = struct.Struct("<H"), struct.Struct("<BI")
_LARGEST = 1 << 60
_WIDTHS = {1: "b", 2: "h", 4: "i", 8: "q"}
_SPARSE, _PLAIN = 0x40, 0x80  # flags of a column's form: with presence bits; not compressed


class BlockError(ValueError):
    """Bytes that are no block."""


@dataclass(slots=True)
class Block:
    """Rows in the order of their times. times are seconds since the block's start.

    values   by metric: one number a row, None where it was not measured
    lows     by metric, of rows that are means: the least and the greatest; empty where rows are single measurements
    """

    times: list[int]
    values: dict[str, list[float | None]]
    lows: dict[str, list[float | None]]
    highs: dict[str, list[float | None]]

    @classmethod
    def empty(cls) -> Block:
        return cls([], {}, {}, {})

    def add(self, time: int, values: Mapping[str, Parts], is_mean: bool) -> None:
        """Append a row: metric -> mean, low, high."""
        tables = (self.values, self.lows, self.highs) if is_mean else (self.values,)
        for number, table in enumerate(tables):
            for name, parts in values.items():
                table.setdefault(name, [None] * len(self.times)).append(parts[number])
            for column in table.values():
                if len(column) == len(self.times):
                    column.append(None)
        self.times.append(time)

    def sort(self) -> None:
        """Bring the rows into the order of their times."""
        order = sorted(range(len(self.times)), key=self.times.__getitem__)
        self.times = [self.times[index] for index in order]
        for table in (self.values, self.lows, self.highs):
            for name, column in table.items():
                table[name] = [column[index] for index in order]


def encode(block: Block) -> bytes:
    """A block of at most MAX_ROWS rows as bytes."""
    parts = [_HEAD.pack(len(block.times)), *_entry(_TIMES, _pack(block.times))]
    for name, values in block.values.items():
        key, resolution = CODES[name] << 2, METRICS[name].resolution
        means = [None if each is None else round(each / resolution) for each in values]
        parts += _entry(key, _pack(means))
        for number, table in ((1, block.lows), (2, block.highs)):
            if name in table:
                ends = (None if each is None else round(each / resolution) for each in table[name])
                apart = [
                    None if end is None or mean is None else end - mean for end, mean in zip(ends, means, strict=True)
                ]
                parts += _entry(key | number, _pack(apart))
    return b"".join(parts)


def decode(data: bytes) -> Block:
    """The block of these bytes; BlockError."""
    block = Block(_times(data), {}, {}, {})
    for name, code in CODES.items():
        rows = _column(data, name)
        if rows:
            tables = (block.values, block.lows, block.highs) if _find(data, code << 2 | 1) else (block.values,)
            for number, table in enumerate(tables):
                table[name] = [row[number] if row else None for row in rows]
    return block


def rows_of(data: bytes, name: str, start: int) -> list[Row]:
    """One metric of a block that begins at the Unix time `start`; the others are not unpacked. BlockError."""
    rows = zip(_times(data), _column(data, name), strict=False)  # no column: it was never measured
    return [(start + time, parts) for time, parts in rows if parts is not None]


def means(block: Block, start: int, width: int) -> dict[int, dict[str, Parts]]:
    """A block that begins at the Unix time `start`, over spans of `width` seconds: span's start -> metric -> values."""
    spans: dict[int, list[int]] = {}
    for index, time in enumerate(block.times):
        spans.setdefault((start + time) // width * width, []).append(index)
    found: dict[int, dict[str, Parts]] = {}
    for begin, rows in spans.items():
        row = found[begin] = {}
        for name, column in block.values.items():
            values = [each for index in rows if (each := column[index]) is not None]
            if values:
                lows = block.lows.get(name, column)
                highs = block.highs.get(name, column)
                low = min(each for index in rows if (each := lows[index]) is not None)
                high = max(each for index in rows if (each := highs[index]) is not None)
                row[name] = (sum(values) / len(values), low, high)
    return found


def thin(rows: Sequence[Row], since: float, until: float, points: int) -> list[Sample]:
    """At most `points` samples: those of a span together as one, at the span's beginning."""
    if len(rows) <= points:
        return [Sample(when, *parts) for when, parts in rows]
    width = (until - since) / points
    spans: dict[int, list[Parts]] = {}
    for when, parts in rows:
        spans.setdefault(int((when - since) / width), []).append(parts)
    found = []
    for number, span in sorted(spans.items()):
        means, lows, highs = zip(*span, strict=True)
        found.append(Sample(since + min(number, points - 1) * width, sum(means) / len(means), min(lows), max(highs)))
    return found


# ------------------------------------------------------------------------------------------------------------ columns


def _entry(key: int, data: bytes) -> tuple[bytes, bytes]:
    return _ENTRY.pack(key, len(data)), data


def _find(data: bytes, wanted: int) -> bytes | None:
    """A column by its key."""
    at = _HEAD.size
    while at < len(data):
        try:
            key, size = _ENTRY.unpack_from(data, at)
        except struct.error:
            raise BlockError("the directory is cut short") from None
        at += _ENTRY.size
        if key == wanted:
            return data[at : at + size]
        at += size
    return None


def _count(data: bytes) -> int:
    return int(_HEAD.unpack_from(data)[0])


def _times(data: bytes) -> list[int]:
    packed = _find(data, _TIMES)
    if packed is None or _count(data) > MAX_ROWS:
        raise BlockError("no times")
    return [each or 0 for each in _unpack(packed, _count(data))]


def _column(data: bytes, name: str) -> list[Parts | None]:
    """A metric's mean, low and high in each row; empty where it was never measured."""
    count, key, resolution = _count(data), CODES[name] << 2, METRICS[name].resolution
    packed, below, above = (_find(data, key | number) for number in range(3))
    if packed is None:
        return []
    means = _unpack(packed, count)
    if below is None or above is None:
        values = (None if each is None else round(each * resolution, 6) for each in means)
        return [None if each is None else (each, each, each) for each in values]
    ends = zip(means, _unpack(below, count), _unpack(above, count), strict=True)
    return [
        None
        if mean is None
        else (
            round(mean * resolution, 6),
            round((mean + (down or 0)) * resolution, 6),
            round((mean + (up or 0)) * resolution, 6),
        )
        for mean, down, up in ends
    ]


def _pack(values: Sequence[int | None]) -> bytes:
    present = [each for each in values if each is not None]
    form, packed = _form(present)
    if len(present) == len(values):
        return bytes([form]) + packed
    bits = bytearray((len(values) + 7) // 8)
    for index, each in enumerate(values):
        if each is not None:
            bits[index // 8] |= 1 << index % 8
    which = zlib.compress(bytes(bits))
    return bytes([form | _SPARSE]) + _varint(len(which)) + which + packed


def _form(values: list[int]) -> tuple[int, bytes]:
    """Numbers as they are, counted from the middle between their ends, or differences: whichever are the least."""
    if not values:
        return 0, b""
    middle = (min(values) + max(values)) // 2
    order, first, rest = 0, [middle], [each - middle for each in values]
    least, taken, level = sum(map(abs, rest)), list[int](), values
    for number in (1, 2):
        if not least or len(level) < 2:
            break
        taken, level = [*taken, level[0]], [late - early for early, late in pairwise(level)]
        if (size := sum(map(abs, level))) < least:
            order, first, rest, least = number, taken, level, size
    head = b"".join(_varint(_zigzag(each)) for each in first)
    if not least:
        return order << 4, head
    low, high = min(rest), max(rest)
    width = next(width for width in _WIDTHS if -1 << 8 * width - 1 <= low and high < 1 << 8 * width - 1)
    flat = array(_WIDTHS[width], rest).tobytes()
    flat = b"".join(flat[number::width] for number in range(width))  # bytes of one weight side by side pack better
    packed = zlib.compress(flat, 6, -15)
    if len(packed) < len(flat):
        return order << 4 | width, head + packed
    return order << 4 | width | _PLAIN, head + flat


def _unpack(data: bytes, count: int) -> list[int | None]:
    try:
        return _read(data, count)
    except (IndexError, zlib.error, ValueError, OverflowError) as error:
        raise BlockError(f"a column is damaged: {error}") from None


def _read(data: bytes, count: int) -> list[int | None]:
    form, at = data[0], 1
    present: list[int] | range = range(count)
    if form & _SPARSE:
        size, at = _read_varint(data, at)
        bits = zlib.decompressobj().decompress(data[at : at + size], MAX_ROWS)
        present = [index for index in range(count) if bits[index // 8] >> index % 8 & 1]
        at += size
    order, width = form >> 4 & 3, form & 15
    first = []
    for _ in range(min(max(1, order), len(present))):
        number, at = _read_varint(data, at)
        first.append(_unzigzag(number))
    values = _values(data[at:], len(present) - order, width, bool(form & _PLAIN))
    if order == 0:
        values = [first[0] + each for each in values]
    else:
        for number in reversed(first):
            values = list(accumulate(values, initial=number))
    if values and not -_LARGEST <= min(values) <= max(values) <= _LARGEST:
        raise ValueError("numbers that nobody measured")
    if len(present) == count:
        return list(values)
    found: list[int | None] = [None] * count
    for index, value in zip(present, values, strict=True):
        found[index] = value
    return found


def _values(data: bytes, count: int, width: int, is_plain: bool) -> list[int]:
    if count <= 0:
        return []
    if width == 0:
        return [0] * count
    if width not in _WIDTHS:
        raise ValueError("no such width")
    flat = data if is_plain else zlib.decompressobj(-15).decompress(data, count * width + 1)
    if len(flat) != count * width:
        raise ValueError("of another length")
    woven = bytearray(len(flat))
    for number in range(width):
        woven[number::width] = flat[number * count : (number + 1) * count]
    return array(_WIDTHS[width], bytes(woven)).tolist()


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _unzigzag(number: int) -> int:
    return -(number + 1 >> 1) if number & 1 else number >> 1


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without end")
