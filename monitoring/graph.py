"""A metric over time, drawn in braille dots for a terminal. Pure: lines of text out of samples.

Own, for it is a page: the libraries for this are megabytes, take a third of a second to import, and change their names
from one release to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, tzinfo
from itertools import pairwise

from monitoring.metrics import Kind, Metric, Sample

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille cell: rows from the top, left and right
_ACROSS, _DOWN = 2, 4
_JOINED = 3.0  # times the usual distance of two samples: a greater gap is left open
_DAY = 86_400


def draw(
    metric: Metric,
    samples: Sequence[Sample],
    since: float,
    until: float,
    width: int,
    height: int,
    zone: tzinfo | None = None,
    is_plain: bool = False,
) -> list[str]:
    """The graph and its axes, `width` by `height` characters at most, and a line that sums it up.

    Between two Unix times; each column shows from the least to the greatest that was measured in it. zone: of the
    times, None for the machine's own. is_plain: where the terminal has no braille.
    """
    if not samples:
        return [f"nothing is known of {metric.name} from {_when(since, until, zone)} to {_when(until, until, zone)}"]
    bottom, top, step = _scale(metric, min(each.low for each in samples), max(each.high for each in samples))
    labels = _labels(metric, bottom, top, step, height - 3)
    margin = max(map(len, labels.values()))
    across, down = max(8, width - margin - 2) * _ACROSS, max(2, height - 3) * _DOWN
    dots = _dots(samples, since, until, bottom, top, across, down)
    lines = []
    for row in range(down // _DOWN):
        cells = "".join(_cell(dots, column, row, is_plain) for column in range(across // _ACROSS))
        lines.append(f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}{cells}".rstrip())
    lines.append(f"{'':>{margin}} └{'─' * (across // _ACROSS)}")
    lines.append(" " * (margin + 2) + _times(since, until, across // _ACROSS, zone))
    if is_plain:
        lines = [line.translate(str.maketrans("┤│└─", "+|+-")) for line in lines]
    return [*lines, _summary(metric, samples, until, zone)]


def _scale(metric: Metric, low: float, high: float) -> tuple[float, float, float]:
    """The ends of the axis, and the distance of its marks: 1, 2 or 5 times a power of ten."""
    if metric.kind is Kind.FLAG:
        return 0.0, 1.0, 1.0
    room = max(high - low, metric.resolution * 4)
    rough = 10 ** math.floor(math.log10(room / 4))
    step = next(rough * each for each in (1, 2, 5, 10) if rough * each >= room / 4)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return (bottom, top, step) if top > bottom else (bottom, bottom + step, step)


def _labels(metric: Metric, bottom: float, top: float, step: float, rows: int) -> dict[int, str]:
    """The words at the left edge, by row from the top."""
    rows = max(2, rows)
    marks = [bottom + number * step for number in range(round((top - bottom) / step) + 1)]
    labels: dict[int, str] = {}
    for mark in marks:
        labels.setdefault(round((top - mark) / (top - bottom) * (rows - 1)), metric.shown(mark))
    return labels


def _dots(
    samples: Sequence[Sample], since: float, until: float, bottom: float, top: float, across: int, down: int
) -> set[tuple[int, int]]:
    """Which dots are set: (column, row), from the top left."""

    def column_of(when: float) -> int:
        return min(across - 1, max(0, int((when - since) / (until - since) * across)))

    def row_of(value: float) -> int:
        share = (top - value) / (top - bottom)
        # The marks of the axis are in the middle of their cells.
        return min(down - 1, max(0, round(share * (down - _DOWN) + _DOWN / 2 - 0.5)))

    dots: set[tuple[int, int]] = set()
    gaps = sorted(late.when - early.when for early, late in pairwise(samples))
    usual = gaps[len(gaps) // 2] if gaps else 0.0
    for number, each in enumerate(samples):
        column = column_of(each.when)
        dots |= {(column, row) for row in range(row_of(each.high), row_of(each.low) + 1)}
        before = samples[number - 1] if number else None
        if before and each.when - before.when <= _JOINED * usual:
            dots |= _line(column_of(before.when), row_of(before.mean), column, row_of(each.mean))
    return dots


def _line(left: int, start: int, right: int, end: int) -> set[tuple[int, int]]:
    steps = max(right - left, abs(end - start), 1)
    return {
        (round(left + (right - left) * step / steps), round(start + (end - start) * step / steps))
        for step in range(steps + 1)
    }


def _cell(dots: set[tuple[int, int]], column: int, row: int, is_plain: bool) -> str:
    bits = sum(
        bit
        for down, line in enumerate(_DOTS)
        for across, bit in enumerate(line)
        if (column * _ACROSS + across, row * _DOWN + down) in dots
    )
    return chr(0x2800 + bits) if bits and not is_plain else "*" if bits else " "


def _when(when: float, until: float, zone: tzinfo | None) -> str:
    """A time, as exactly as it is read beside the present."""
    local = datetime.fromtimestamp(when, zone).astimezone(zone)
    return local.strftime("%H:%M" if until - when < _DAY else "%Y-%m-%d %H:%M")


def _times(since: float, until: float, width: int, zone: tzinfo | None) -> str:
    """The line below the axis: the time at some of its columns."""
    form = "%H:%M:%S" if until - since < 600 else "%H:%M" if until - since <= 2 * _DAY else "%m-%d"
    line = ""
    every = max(12, width // 6)
    for column in range(0, width - 7, every):
        local = datetime.fromtimestamp(since + (until - since) * column / width, zone).astimezone(zone)
        line = f"{line:<{column}}{local.strftime(form)}"
    return line


def _summary(metric: Metric, samples: Sequence[Sample], until: float, zone: tzinfo | None) -> str:
    least, greatest = min(samples, key=lambda each: each.low), max(samples, key=lambda each: each.high)
    mean, last = sum(each.mean for each in samples) / len(samples), samples[-1]
    now = f"{metric.name}: {metric.shown(last.mean)} at {_when(last.when, until, zone)}"
    if metric.kind is Kind.FLAG:
        return f"{now}, {mean:.1%} of the time"
    low = f"lowest {metric.shown(least.low)} at {_when(least.when, until, zone)}"
    high = f"highest {metric.shown(greatest.high)} at {_when(greatest.when, until, zone)}"
    return f"{now}, mean {metric.shown(mean)}, {low}, {high}"
