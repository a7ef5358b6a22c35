"""What is measured of a Pi: names, units, ranges, and the reading that one poll brings. Data only; no clock, no I/O.

The names are a promise: the keys of the agent's JSON, of the API, and, with the unit appended, of Prometheus.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """How a metric's values are to be read."""

    GAUGE = "gauge"  # goes up and down
    COUNTER = "counter"  # grows, and starts at 0 with each boot of the Pi
    FLAG = "flag"  # 0.0 or 1.0


class Source(StrEnum):
    """Who finds a metric out."""

    AGENT = "agent"  # the Pi itself
    MANAGER = "manager"  # what can be seen from outside


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is measured. `unit`: percent, celsius, seconds, milliseconds, watts, count or bool.

    decimals      of a value that are kept
    low, high     a value outside is no measurement, and refused
    """

    name: str
    unit: str
    help: str
    kind: Kind = Kind.GAUGE
    source: Source = Source.AGENT
    decimals: int = 1
    low: float = 0.0
    high: float = 1e9

    def accepts(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high

    def rounded(self, value: float) -> float:
        """The value as it is kept."""
        return round(value, self.decimals)

    @property
    def resolution(self) -> float:
        """What every value that is kept is a multiple of."""
        return 10.0**-self.decimals

    def shown(self, value: float) -> str:
        """The value with its unit, for a person: `45.3 °C`, `12.0 %`, `yes`."""
        if self.kind is Kind.FLAG:
            return "yes" if value else "no"
        return f"{value:.{self.decimals}f}{_SUFFIXES[self.unit]}"


_SUFFIXES = {"percent": " %", "celsius": " °C", "seconds": " s", "milliseconds": " ms", "watts": " W", "count": ""}

_YEAR = 31_557_600.0


def _flag(name: str, text: str, source: Source = Source.AGENT) -> Metric:
    return Metric(name, "bool", text, Kind.FLAG, source, 2, 0.0, 1.0)


METRICS: Mapping[str, Metric] = {
    each.name: each
    for each in (
        Metric("cpu_percent", "percent", "Processor time in use since the poll before, of all cores.", high=100.0),
        Metric("memory_percent", "percent", "Memory in use, without what the kernel could free.", high=100.0),
        Metric("disk_percent", "percent", "Space in use on the root file system.", high=100.0),
        Metric("num_pids", "count", "Processes.", high=4_194_304.0),
        Metric("temperature", "celsius", "Temperature of the processor.", low=-60.0, high=200.0),
        Metric("load1", "count", "Load average of one minute: tasks that run or wait.", decimals=2, high=1e6),
        Metric("uptime", "seconds", "Since the kernel started.", decimals=0, high=100 * _YEAR),
        _flag("under_voltage", "The supply voltage is too low now."),
        _flag("under_voltage_seen", "The supply voltage was too low at some time since the boot."),
        _flag("throttled", "The processor is slowed down now, by heat or by low voltage."),
        _flag("throttled_seen", "The processor was slowed down at some time since the boot."),
        Metric(
            "clock_offset",
            "seconds",
            "The Pi's clock minus the manager's.",
            decimals=6,
            low=-200 * _YEAR,
            high=200 * _YEAR,
        ),
        Metric("card_errors", "count", "Errors of the SD card and its file system since the boot.", Kind.COUNTER),
        _flag("up", "The Pi works, by all the evidence there is.", Source.MANAGER),
        Metric(
            "ping_ms",
            "milliseconds",
            "Until the Pi's kernel answered a TCP connection.",
            source=Source.MANAGER,
            decimals=2,
            high=60_000.0,
        ),
        Metric("watts", "watts", "Power drawn from the switch's port.", source=Source.MANAGER, high=1000.0),
    )
}
AGENT_METRICS: tuple[Metric, ...] = tuple(each for each in METRICS.values() if each.source is Source.AGENT)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one poll of one Pi found at the Unix time `when`.

    values    by the name of the metric; what could not be found out is left out
    words     image, kernel, agent (its version), error (why the agent did not answer, empty if it did), evidence (why
              the Pi is taken for up or down), since (the Unix time when it became so, in digits)
    """

    mac: str
    when: float
    values: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric at one time, or over a span that begins at `when`: its mean and its extremes."""

    when: float
    mean: float
    low: float
    high: float
