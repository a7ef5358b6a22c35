"""monitoring/graph: the axes say what the dots show, a gap stays a gap, and nothing runs over the edge."""

from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.graph import draw
from monitoring.metrics import METRICS, Sample

BEGIN = 1_700_006_400.0  # a midnight
HEAT = METRICS["temperature"]


def flat(values: list[float], step: float = 60.0) -> list[Sample]:
    return [Sample(BEGIN + number * step, value, value, value) for number, value in enumerate(values)]


def test_a_rising_line() -> None:
    assert draw(HEAT, flat([40.0, 41.0, 42.0, 43.0, 44.0]), BEGIN, BEGIN + 300, 34, 8, UTC) == [
        "44.0 °C ┤                  ⢀⡠⠄",
        "43.0 °C ┤             ⢀⡠⠤⠒⠉⠁",
        "42.0 °C ┤        ⢀⡠⠤⠒⠉⠁",
        "41.0 °C ┤   ⢀⡠⠤⠒⠉⠁",
        "40.0 °C ┤⠤⠒⠉⠁",
        "        └─────────────────────────",
        "         00:00:00    00:02:24",
        "temperature: 44.0 °C at 00:04, mean 42.0 °C, lowest 40.0 °C at 00:00, highest 44.0 °C at 00:04",
    ]


def test_nothing_is_said_in_words() -> None:
    text = "nothing is known of temperature from 2023-11-15 00:00 to 00:00"
    assert draw(HEAT, [], BEGIN, BEGIN + 86400, 80, 20, UTC) == [text]


def test_a_flag_and_a_terminal_without_braille() -> None:
    lines = draw(METRICS["up"], flat([1.0, 1.0, 0.0, 0.0, 1.0]), BEGIN, BEGIN + 300, 40, 6, UTC, is_plain=True)
    assert lines[0].startswith("yes +***")
    assert lines[-4].startswith(" no +   ")
    assert lines[-3].strip("- ") == "+"
    assert lines[-1] == "up: yes at 00:04, 60.0% of the time"
    assert all(line.isascii() for line in lines)


def test_extremes_are_drawn_and_a_gap_is_left_open() -> None:
    samples = [*flat([50.0] * 5), Sample(BEGIN + 3000, 50.0, 40.0, 60.0)]
    lines = draw(HEAT, samples, BEGIN, BEGIN + 3600, 60, 12, UTC)
    columns = [sum(line[9 + number :][:1] not in ("", " ", "⠀") for line in lines[:9]) for number in range(50)]
    assert columns[42] == 9  # from 40 to 60
    assert sum(columns[5:40]) == 0


@pytest.mark.parametrize(("span", "form"), [(300, "00:00:00"), (7200, "00:00"), (30 * 86400, "11-15")])
def test_times_are_as_fine_as_the_span(span: float, form: str) -> None:
    assert draw(HEAT, flat([1.0]), BEGIN, BEGIN + span, 80, 10, UTC)[-2].split()[0] == form


numbers = st.floats(-50, 150).map(HEAT.rounded)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=30), st.integers(0, 90), st.integers(0, 30))
def test_any_samples_fit_into_any_size(values: list[tuple[float, ...]], width: int, height: int) -> None:
    samples = [
        Sample(BEGIN + 100.0 * number, *[sorted(each)[index] for index in (1, 0, 2)])
        for number, each in enumerate(values)
    ]
    lines = draw(HEAT, samples, BEGIN, BEGIN + 3000, width, height, UTC)
    assert len(lines) <= max(height, 5)
    assert all(len(line) <= max(width, 25) for line in lines[:-1])
