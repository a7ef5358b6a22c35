"""Measures our servers beside their peers and says whether the promised ratios hold. Run it with tests/bench/run.sh.

Peer and ours are started in turn, several times, each for the same loads; a ratio is the median of the ratios of
neighbours, so that a machine that grows slower meanwhile does not decide. Everything is bounded in time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import psutil

from tests.bench import footprint, pages, polling, servers, switches
from tests.bench.servers import SERVER, Server, cpu_seconds, in_space, make_wire, running

RESULTS = servers.ROOT / "build" / "bench"
LOADERS = servers.ROOT / ".cache" / "bench"
LOAD_PATIENCE = 90.0
KINDS = ("tftp", "dhcp", "ntp", "image", "footprint", "findport", "monitoring", "web")

BLOCK_SIZE = 1468
RESERVED = 10_000
DNSMASQ_RESERVED = 2_000  # it looks through its hosts and leases for each message, and writes its leases each time
IMAGE_CLIENTS = 100

PLOTTED = frozenset(KINDS) - {"footprint", "findport", "monitoring", "web"}  # they have no clients to be many
QUIET = frozenset({"right", "ok", "wrong", "unanswered", "failed", "lost", "cpu_per_work"})  # not shown while it runs

Run = dict[str, float]
Maker = Callable[[Path], Server]


@dataclass(frozen=True, slots=True)
class Load:
    """One way to load a server. words: a program of .cache/bench and its arguments."""

    key: str
    words: Sequence[str]
    work: float  # how much it does: gigabytes, exchanges; 0: as long as it is told
    counted: bool = True  # no: it only warms up


@dataclass(slots=True)
class Measured:
    """What a kind's servers did: server -> load -> runs."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)

    def add(self, server: str, load: str, run: Run) -> None:
        self.runs.setdefault(server, {}).setdefault(load, []).append(run)

    def values(self, server: str, load: str, key: str) -> list[float]:
        return [run[key] for run in self.runs[server][load]]

    def median(self, server: str, load: str, key: str) -> float:
        return statistics.median(self.values(server, load, key))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `value` is held against `limit`: at least, or at most."""

    what: str
    against: str
    ours: str
    theirs: str
    value: float
    limit: float | None  # None: it is told, and promises nothing
    at_most: bool
    unit: str  # of value: "x", "us", "ms", "MB", "%"
    per_cpu: float = 0.0  # the ratio of what was done in a second of the servers' processor time; 0: not asked
    note: str = ""

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: the default run stays under 10 minutes, the quick one under 2."""

    folder: Path
    quick: bool

    def rounds(self, wanted: int, budget: float) -> Iterator[int]:
        """Count the rounds: as many as wanted, or as fit into `budget` seconds; one at the least."""
        began = time.monotonic()
        for turn in range(1 if self.quick else wanted):
            if (time.monotonic() - began) * (turn + 1) > budget * max(turn, 1):
                say(f"  {turn} of {wanted} rounds: the machine is too slow for more in {budget:g} s")
                return
            yield turn


def say(text: str) -> None:
    click.echo(text, err=True)


def load_once(load: Load, process_cpu: Callable[[], float], settle: Callable[[], float] = time.monotonic) -> Run:
    """Run a load generator once; raises where it says that something was wrong.

    settle    waits for what the server has put off, whose processor time counts; the moment when that was done
    """
    before = process_cpu()
    program, *arguments = load.words
    done = subprocess.run(
        in_space("load", [str(LOADERS / program), *arguments]),
        capture_output=True,
        text=True,
        timeout=LOAD_PATIENCE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(load.words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
    run: Run = {key: float(value) for key, value in json.loads(done.stdout).items()}
    ended = time.monotonic()
    run["done_s"] = run.get("seconds", 0.0) + max(0.0, settle() - ended)
    run["cpu_s"] = process_cpu() - before
    run["cpu_per_work"] = run["cpu_s"] / (load.work or run["ok"])
    return run


Settle = Callable[[Load, psutil.Process], float]


def at_once(_load: Load, _process: psutil.Process) -> float:
    return time.monotonic()


def measure(measured: Measured, plan: Plan, make: Maker, loads: Sequence[Load], settle: Settle = at_once) -> None:
    """Start the server, put each load on it in turn, stop it."""
    server = make(plan.folder)
    with running(server, plan.folder) as process:
        for load in loads:
            try:
                run = load_once(load, lambda: cpu_seconds(process), functools.partial(settle, load, process))
            except RuntimeError as error:
                raise click.ClickException(f"{server.name}: {error}") from None
            if not load.counted:
                continue
            if run.get("unanswered") and server.name.startswith("piman"):
                raise click.ClickException(f"{server.name}: {load.key}: {run['unanswered']:g} got no answer")
            measured.add(server.name, load.key, run)
            shown = {key: value for key, value in run.items() if key not in QUIET}
            say(f"  {server.name:<13} {load.key:<14} " + "  ".join(f"{key} {value:g}" for key, value in shown.items()))


def pair_ratio(measured: Measured, ours: tuple[str, str], theirs: tuple[str, str], key: str) -> float:
    pairs = zip(measured.values(*ours, key), measured.values(*theirs, key), strict=False)
    return statistics.median(mine / peer for mine, peer in pairs)


def ratio_row(
    measured: Measured, what: str, ours: tuple[str, str], theirs: tuple[str, str], key: str, unit: str,
    limit: float | None,
    note: str = "", at_most: bool = False,
) -> Row:  # fmt: skip
    """A row of a ratio ours / theirs; `ours` and `theirs` are (server, load)."""
    mine, peer = measured.median(*ours, key), measured.median(*theirs, key)
    digits = ".2f" if mine < 100 else ",.0f"
    value = pair_ratio(measured, ours, theirs, key)
    per_cpu = 0.0 if at_most else 1 / pair_ratio(measured, ours, theirs, "cpu_per_work")
    shown = (f"{mine:{digits}} {unit}", f"{peer:{digits}} {unit}")
    return Row(what, theirs[0], shown[0], shown[1], value, limit, at_most, "x", per_cpu, note)


# ------------------------------------------------------------------------------------------------------------- TFTP


def bench_tftp(plan: Plan) -> tuple[Measured, list[Row]]:
    boot = plan.folder / "boot" / servers.BOOT_FILE
    size = boot.stat().st_size
    head = ["tftpload", str(SERVER), str(servers.TFTP_PORT), servers.BOOT_FILE, str(boot)]

    def load(clients: int, transfers: int, window: int) -> Load:
        words = [*head, str(clients), str(transfers), str(BLOCK_SIZE), str(window)]
        return Load(f"{clients}, window {window or 1}", words, transfers * size / 1e9)

    first_round = [] if plan.quick else [load(10, 40, 0)], [] if plan.quick else [load(50, 50, 4), load(50, 50, 44)]
    lock_step, windows = [load(1, 20, 0), load(50, 100, 0), load(200, 200, 0)], [load(50, 100, 16)]
    ours = servers.piman("tftp", servers.TFTP_PORT, 200)
    measured = Measured()
    for turn in plan.rounds(3, 200):
        more, wider = ([], []) if turn else first_round
        measure(measured, plan, servers.dnsmasq_tftp, [*lock_step, *more])
        measure(measured, plan, ours, [*lock_step, *more, *windows, *wider])
        measure(measured, plan, servers.atftpd, [*windows, *wider])
    rows = []
    for clients, limit in ((1, 1.0), (50, 1.2), (200, 1.2)):
        key = f"{clients}, window 1"
        what = f"TFTP lock-step, {clients} client{'s' * (clients > 1)}"
        rows.append(ratio_row(measured, what, ("piman-tftp", key), ("dnsmasq-tftp", key), "mb_per_s", "MB/s", limit))
        spread = [
            statistics.median(run["p99_ms"] / run["p50_ms"] for run in measured.runs[server][key])
            for server in ("piman-tftp", "dnsmasq-tftp")
        ]
        told = [f"{each:.2f}" for each in spread]
        rows.append(Row(f"  its p99 / p50, {clients}", "its own p50", told[0], told[1], spread[0], 1.2, True, "x"))
    mine = ("piman-tftp", "50, window 16")
    what = "TFTP windowsize 16, 50 clients"
    rows.append(ratio_row(measured, what, mine, ("atftpd", mine[1]), "mb_per_s", "MB/s", 3.0))
    rows.append(ratio_row(measured, what, mine, ("piman-tftp", "50, window 1"), "mb_per_s", "MB/s", 4.0))
    return measured, rows


# ------------------------------------------------------------------------------------------------------------- DHCP


def bench_dhcp(plan: Plan) -> tuple[Measured, list[Row]]:
    """Answers per second; and how long it takes until the server has also done what it put off to answer first."""

    def load(key: str, pis: int, outstanding: int) -> Load:
        words = ["dhcpload", "veth-load", str(pis), str(outstanding), str(servers.FIRST_PI)]
        return Load(key, words, pis)

    def settle(load: Load, process: psutil.Process) -> float:
        """When it had done it all; the next load finds a server that is idle."""
        if process.name() != "kea-dhcp4" and load.key == "first boot":
            servers.wait_until_on_board(plan.folder, RESERVED)
        done = time.monotonic()
        servers.wait_until_idle(process)
        return done

    loads = [load("first boot", RESERVED, 32), load("again", RESERVED, 32)]
    sweep = [] if plan.quick else [load(f"{each} outstanding", 2000, each) for each in (1, 8, 128)]
    slow = load("first boot", DNSMASQ_RESERVED // (4 if plan.quick else 1), 32)
    ours = servers.piman("dhcp", servers.DHCP_PORT, RESERVED)
    measured = Measured()
    for turn in plan.rounds(5, 75):
        for make in (servers.kea(RESERVED), ours):
            measure(measured, plan, make, [*loads, *(sweep if turn == 0 else [])], settle)
    measure(measured, plan, servers.dnsmasq_dhcp(DNSMASQ_RESERVED), [slow])
    mine, peer = ("piman-dhcp", "first boot"), ("kea", "first boot")
    unanswered = measured.median("dnsmasq-dhcp", "first boot", "unanswered")
    note = f"dnsmasq with {DNSMASQ_RESERVED} hosts, one round"
    if unanswered:
        note += f"; {unanswered:g} of its {slow.work:g} exchanges got no answer"
    for runs in measured.runs.values():
        for run in (run for each in runs.values() for run in each):
            run["done_per_s"] = run["ok"] / run["done_s"]
    rows = [
        ratio_row(measured, "DHCP, 10,000 reserved, first boot", mine, peer, "per_s", "/s", 2.0),
        ratio_row(measured, "  until all is on the board and stored", mine, peer, "done_per_s", "/s", None),
        ratio_row(measured, "DHCP, the same Pis again", ("piman-dhcp", "again"), ("kea", "again"), "per_s", "/s", 2.0),
        ratio_row(measured, "DHCP, first boot", mine, ("dnsmasq-dhcp", "first boot"), "per_s", "/s", 50.0, note),
    ]  # fmt: skip
    return measured, rows


# -------------------------------------------------------------------------------------------------------------- NTP


def bench_ntp(plan: Plan) -> tuple[Measured, list[Row]]:
    def load(outstanding: int, seconds: float) -> Load:
        words = ["ntpload", str(SERVER), str(servers.NTP_PORT), str(seconds), str(outstanding)]
        return Load(f"{outstanding} outstanding", words, 0)

    loads = [load(16, 2), load(1, 1)] + ([] if plan.quick else [load(4, 1), load(64, 1)])
    ours = servers.piman("ntp", servers.NTP_PORT, 200)
    measured = Measured()
    for _ in plan.rounds(5, 75):
        measure(measured, plan, servers.chronyd, loads)
        measure(measured, plan, ours, loads)
    mine, peer = ("piman-ntp", "16 outstanding"), ("chronyd", "16 outstanding")
    rows = [ratio_row(measured, "NTP, 16 outstanding", mine, peer, "per_s", "/s", 0.6)]
    offsets = [measured.median(name, "1 outstanding", "offset_us_p50") for name in ("piman-ntp", "chronyd")]
    apart = abs(offsets[0] - offsets[1])
    told = [f"{each:.2f} us" for each in offsets]
    rows.append(Row("  its offset at p50, 1 outstanding", "chronyd", told[0], told[1], apart, 2.0, True, "us"))
    return measured, rows


# ------------------------------------------------------------------------------------------------------------ image


def bench_image(plan: Plan) -> tuple[Measured, list[Row]]:
    image = plan.folder / "www" / "image"

    def load(clients: int, rounds: int, http: bool, counted: bool = True) -> Load:
        port = servers.HTTP_PORT if http else servers.IMAGE_PORT
        how = ["http", "/image"] if http else ["hello", str(servers.HELLO_PORT)]
        words = ["tcpload", str(SERVER), str(port), str(clients), str(rounds), str(image), str(servers.FIRST_PI), *how]
        return Load(f"{clients} clients", words, clients * rounds * image.stat().st_size / 1e9, counted)

    def loads(http: bool) -> list[Load]:
        # Ours computes the image's hash before the first install, once for a file.
        return [load(1, 1, http, counted=False), *(load(*amount, http) for amount in amounts)]

    amounts = [(1, 20), (20, 1), (100, 1)]
    ours = servers.piman("hello", servers.IMAGE_PORT, 200)
    measured = Measured()
    for _ in plan.rounds(5, 90):
        measure(measured, plan, servers.nginx, loads(http=True))
        measure(measured, plan, ours, loads(http=False))
    rows = []
    for clients, _ in amounts:
        mine, peer = ("piman-hello", f"{clients} clients"), ("nginx", f"{clients} clients")
        what = f"image to {clients} Pi{'s' * (clients > 1)}"
        rows.append(ratio_row(measured, what, mine, peer, "mb_per_s", "MB/s", 1.0))
        rows.append(ratio_row(measured, "  its CPU per GB", mine, peer, "cpu_per_work", "s/GB", 1.1, at_most=True))
    return measured, rows


# -------------------------------------------------------------------------------------------------------- footprint


def bench_footprint(plan: Plan) -> tuple[Measured, list[Row]]:
    """Commands that must feel immediate, and a server that must not be felt at all; each with 500 Pis known."""
    config = footprint.make_home(plan.folder / "footprint")
    measured = Measured()
    taken = footprint.time_commands(config, 3 if plan.quick else 15)
    for name, times in taken.items():
        for milliseconds in times:
            measured.add(name, "start", {"ms": milliseconds})
        say(f"  {name:<13} ms {statistics.median(times):.0f}")
    megabytes, percent = footprint.idle(config, 5 if plan.quick else 30)
    measured.add("piman", "idle", {"mb": megabytes, "percent": percent})
    say(f"  idle server   MB {megabytes:.1f}  % of a core {percent:.2f}")
    least = measured.median("import click", "start", "ms")
    rows = []
    for name, limit in (("piman --help", 60.0), ("piman status", 250.0)):
        mine = measured.median(name, "start", "ms")
        shown = (f"{mine:.0f} ms", f"{least:.0f} ms")
        rows.append(Row(name, "import click", *shown, mine - least, limit, at_most=True, unit="ms"))
    what = f"idle with {footprint.PIS} Pis"
    rows.append(Row(f"{what}, memory", "", f"{megabytes:.0f} MB", "", megabytes, 80.0, at_most=True, unit="MB"))
    rows.append(Row(f"{what}, processor", "", f"{percent:.1f} %", "", percent, 1.0, at_most=True, unit="%"))
    return measured, rows


# ------------------------------------------------------------------------------------------------------- monitoring


def bench_monitoring(plan: Plan) -> tuple[Measured, list[Row]]:
    """Five hundred agents every ten seconds, fifty of them hanging: five minutes, or one."""
    found = polling.poll(plan.folder / "monitoring", 60 if plan.quick else 300)
    measured = Measured()
    measured.add("piman", "polling", asdict(found))
    say(f"  polling   MB {found.megabytes:.1f}  % of a core {found.percent:.2f}  longest pause {found.gap:.1f} s")
    what = f"{polling.PIS} agents every {polling.INTERVAL:g} s, {polling.HANGING} hang"
    shown = (f"{found.missed}", f"{found.megabytes:.0f} MB", f"{found.percent:.1f} %")
    rows = [
        Row(f"{what}: polls missed", "", shown[0], "", found.missed, 0.0, at_most=True, unit=""),
        Row("  readings without a measure", "", f"{found.unread}", "", found.unread, 0.0, at_most=True, unit=""),
        Row("  memory", "", shown[1], "", found.megabytes, 80.0, at_most=True, unit="MB"),
        Row("  processor", "", shown[2], "", found.percent, 1.0, at_most=True, unit="%"),
    ]
    return measured, rows


# -------------------------------------------------------------------------------------------------------------- web


def bench_web(plan: Plan) -> tuple[Measured, list[Row]]:
    """The dashboard of 500 Pis, ten of which install, in Chromium: one page, and twenty."""
    found = pages.look_at(plan.folder / "web", plan.quick)
    measured = Measured()
    for took in found.paints:
        measured.add("piman", "paint", {"s": took})
    measured.add("piman", f"{pages.PAGES} pages", {"alone": found.alone, "open": found.open, "shift": found.shift})
    paint, cost = statistics.median(found.paints), found.open - found.alone
    say(
        f"  paint s {paint:.2f} ({max(found.paints):.2f} at most)  % of a core {found.alone:.1f}, open {found.open:.1f}"
    )
    shown = f"{paint:.2f} s", f"{found.anew} of {pages.PIS}", f"{found.shift:.3f}"
    changes = f"{found.changed} squares changed meanwhile"
    rows = [
        Row(f"dashboard of {pages.PIS} Pis: painted after", "", shown[0], "", paint, 1.0, at_most=True, unit="s"),
        Row("  unchanged squares made anew", "", shown[1], "", found.anew, 0.0, at_most=True, unit="", note=changes),
        Row("  layout shift", "", shown[2], "", found.shift, 0.01, at_most=True, unit=""),
        Row(
            f"  {pages.PAGES} open pages, processor", "none open", f"{found.open:.1f} %", f"{found.alone:.1f} %", cost,
            5.0, at_most=True, unit="%",
        ),
    ]  # fmt: skip
    return measured, rows


# --------------------------------------------------------------------------------------------------------- findport


def bench_findport(plan: Plan) -> tuple[Measured, list[Row]]:
    """Ours beside ours: all switches beside one of them."""
    measured, rows = Measured(), []
    with switches.running():
        for version in ("2c", "3"):
            runs = switches.measure(version, 2 if plan.quick else 7)
            for one, every, cpu in runs:
                measured.add(f"v{version}", "1 switch", {"s": one})
                measured.add(f"v{version}", f"{switches.SWITCHES} switches", {"s": every, "cpu_s": cpu})
            value = statistics.median(every / one for one, every, _ in runs)
            told = [f"{switches.median(runs, place):.2f} s" for place in (1, 0)]
            say(f"  v{version:<4} {switches.SWITCHES} switches {told[0]}  one {told[1]}")
            what = f"findport, {switches.SWITCHES} switches of {switches.PORTS} ports, v{version}"
            note = f"{2000 * switches.ONE_WAY:g} ms there and back"
            rows.append(Row(what, "one switch", told[0], told[1], value, 3.0, at_most=True, unit="x", note=note))
    return measured, rows


# ------------------------------------------------------------------------------------------------------ what is told

BENCHES: dict[str, Callable[[Plan], tuple[Measured, list[Row]]]] = {
    "tftp": bench_tftp,
    "dhcp": bench_dhcp,
    "ntp": bench_ntp,
    "image": bench_image,
    "footprint": bench_footprint,
    "monitoring": bench_monitoring,
    "findport": bench_findport,
    "web": bench_web,
}


def machine() -> dict[str, str | int]:
    """What it ran on, for who reads the numbers later."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    packages = ("dnsmasq-base", "atftpd", "kea-dhcp4-server", "chrony", "nginx-light")
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}, ", *packages], capture_output=True, text=True, check=False
    )
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "cpu": model.partition(":")[2].strip(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "peers": shown.stdout.strip(", "),
    }


def table(rows: Sequence[Row], markdown: bool) -> list[str]:
    lines = [("what", "piman", "peer", "", "ratio", "wanted", "per CPU", "")]
    for row in rows:
        value = f"{row.value:.2f}{'x' if row.unit == 'x' else ' ' + row.unit}"
        bound = "" if row.limit is None else f"{row.limit:g}{'x' if row.unit == 'x' else ' ' + row.unit}"
        limit = f"{'<=' if row.at_most else '>='} {bound}" if bound else ""
        per_cpu = f"{row.per_cpu:.2f}x" if row.per_cpu else ""
        note = "; ".join(filter(None, ("" if row.holds else "falls short", row.note)))
        lines.append((row.what, row.ours, row.theirs, row.against, value, limit, per_cpu, note))
    if markdown:
        head, *body = ("| " + " | ".join(each.strip() for each in line) + " |" for line in lines)
        return [head, "|" + "---|" * len(lines[0]), *body]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(each.ljust(width) for each, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def load_average() -> str:
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def run_kind(kind: str, plan: Plan) -> list[Row]:
    say(f"{kind}:")
    before, began = load_average(), time.monotonic()
    measured, rows = BENCHES[kind](plan)
    RESULTS.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine(),
        "quick": plan.quick,
        "seconds": round(time.monotonic() - began, 1),
        "load_average": {"before": before, "after": load_average()},
        "rows": [asdict(row) for row in rows],
        "runs": measured.runs,
    }
    (RESULTS / f"{kind}.json").write_text(json.dumps(result, indent=1) + "\n")
    return rows


def stored_rows(kind: str) -> tuple[str, str, list[Row]]:
    """Of the last run: what it ran on, how loaded that was, the rows."""
    try:
        result = json.loads((RESULTS / f"{kind}.json").read_text())
    except OSError:
        raise click.ClickException(f"{kind}: nothing was measured yet; run tests/bench/run.sh {kind}") from None
    about = result["machine"]
    text = f"{about['when'][:10]}, {about['cpu']}, {about['cores']} cores, Python {about['python']}; {about['peers']}."
    loaded = f"{kind} {result['load_average']['before'].split()[0]}{' (--quick)' if result['quick'] else ''}"
    return text, loaded, [Row(**row) for row in result["rows"]]


@contextlib.contextmanager
def files() -> Iterator[Path]:
    """A folder with the boot file and the image, of bytes that nothing can compress or mix up."""
    with tempfile.TemporaryDirectory(prefix="piman-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # servers that give up root must read it
        for where, size in (("boot/" + servers.BOOT_FILE, 8_000_000), ("www/image", 256_000_000)):
            (folder / where).parent.mkdir()
            (folder / where).write_bytes(os.urandom(size))
        yield folder


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--quick", is_flag=True, help="One round of less: under 2 minutes.")
@click.option("--markdown", is_flag=True, help="Measure nothing: the last results, as the table of a README.")
def main(kinds: tuple[str, ...], quick: bool, markdown: bool) -> None:
    """Compare our servers with their peers; without KINDS all of them. Results and plots are in build/bench."""
    chosen = kinds or KINDS
    if markdown:
        stored = [stored_rows(kind) for kind in chosen]
        click.echo("\n".join(table([row for _, _, rows in stored for row in rows], markdown=True)))
        click.echo("\n" + "\n".join(dict.fromkeys(about for about, _, _ in stored)))
        click.echo("Load average before: " + ", ".join(loaded for _, loaded, _ in stored) + ".")
        return
    make_wire(IMAGE_CLIENTS)
    say(f"{os.cpu_count()} cores for the server, the load and all else that runs; load average {load_average()}")
    with files() as folder:
        plan = Plan(folder, quick)
        rows = [row for kind in chosen for row in run_kind(kind, plan)]
    from tests.bench.plots import plot

    for kind in PLOTTED.intersection(chosen):
        plot(json.loads((RESULTS / f"{kind}.json").read_text())["runs"], kind, RESULTS / f"{kind}.png")
    click.echo("\n".join(table(rows, markdown=False)))
    short = [row for row in rows if not row.holds]
    click.echo(f"\n{len(rows) - len(short)} of {len(rows)} hold; load average {load_average()}; {RESULTS}")
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
