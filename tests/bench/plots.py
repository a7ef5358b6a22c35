"""Throughput over clients, as a PNG a kind. Needs matplotlib, the extra `bench`."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

UNITS = {"tftp": "MB/s", "image": "MB/s", "dhcp": "exchanges/s", "ntp": "requests/s"}
AXES = {"tftp": "clients at once", "image": "Pis at once", "dhcp": "outstanding", "ntp": "outstanding"}
DHCP_OUTSTANDING = 32  # of the loads whose name does not begin with it

Runs = dict[str, dict[str, list[dict[str, float]]]]


def points(loads: dict[str, list[dict[str, float]]], pattern: str, key: str) -> list[tuple[int, float]]:
    """(clients, median) of the loads whose name is like the pattern, whose first group is the number."""
    found = ((re.fullmatch(pattern, name), runs) for name, runs in loads.items())
    return sorted((int(match[1]), statistics.median(run[key] for run in runs)) for match, runs in found if match)


def series(kind: str, runs: Runs) -> dict[str, list[tuple[int, float]]]:
    """The lines of a kind's plot: name -> (clients, throughput)."""
    key = "mb_per_s" if UNITS[kind] == "MB/s" else "per_s"
    lines = {}
    for server, loads in runs.items():
        line = points(loads, r"(\d+)(?:, window 1| outstanding| clients)", key)
        if kind == "dhcp" and "first boot" in loads:
            line = sorted([*line, (DHCP_OUTSTANDING, statistics.median(run[key] for run in loads["first boot"]))])
        if line:
            lines[server] = line
    return lines


def window_series(runs: Runs) -> dict[str, list[tuple[int, float]]]:
    """TFTP at 50 clients: server -> (windowsize, MB/s)."""
    lines = {server: points(loads, r"50, window (\d+)", "mb_per_s") for server, loads in runs.items()}
    return {server: line for server, line in lines.items() if len(line) > 1}


def plot(runs: Runs, kind: str, path: Path) -> None:
    panels = [(AXES[kind], series(kind, runs))]
    if kind == "tftp":
        panels.append(("windowsize, 50 clients", window_series(runs)))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4), squeeze=False)
    each: Any
    for each, (label, lines) in zip(axes[0], panels, strict=True):
        for server, line in lines.items():
            each.plot(*zip(*line, strict=True), marker="o", label=server)
        each.set_xscale("symlog", base=2, linthresh=1)
        ticks = sorted({x for line in lines.values() for x, _ in line})
        each.set_xticks(ticks, [str(x) for x in ticks])
        each.set_ylim(bottom=0)
        each.set_xlabel(label)
        each.set_ylabel(UNITS[kind])
        each.grid(alpha=0.3)
        each.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
