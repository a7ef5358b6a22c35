"""Runs the targets of tests/fuzz/targets.py, each in a process of its own, two at once; fails if one has a finding.

    python -m tests.fuzz.fuzz [--seconds N] [TARGET...]     N seconds each
    python -m tests.fuzz.fuzz --input HEX TARGET            one input, as it is printed with a finding

Atheris looks for inputs that reach new code. Where it has no package (it is made for x86_64 only) the same targets are
fed with inputs changed by chance. Findings: any exception, an input that takes too long, memory that grows.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = 2
HANGS = 30  # seconds, after which an input is taken for one that never ends
MEMORY = 200  # MB resident, of a process
LOOK_EVERY = 4096  # inputs between two looks at the memory
MORE_BLOCKS = 100_000  # of Python's memory, since the first look; about 10 MB
SHRINK_FOR = 5.0  # seconds

# Whose branches guide the search: our code, and for what decodes elsewhere that code too.
OURS = ["dhcp", "tftp", "tcp", "ntp", "utility", "monitoring"]
THEIRS = {"config": ["yaml", "dotenv"], "snmp_packet": ["pyasn1.codec.ber.decoder"]}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------------------------- the process of one target


def guard(run: Callable[[bytes], None], limit: float) -> Callable[[bytes], None]:
    """The same, and a finding where an input takes longer than `limit` of the processor, or Python's memory grows."""
    count = first = 0

    def took(data: bytes) -> float:
        started = time.process_time()
        run(data)
        return time.process_time() - started

    def guarded(data: bytes) -> None:
        nonlocal count, first
        if took(data) > limit:
            again = took(data)  # the first time may have met a garbage collection, or the first import of a module
            assert again <= limit, f"takes {again:.2f} s"
        count += 1
        if count % LOOK_EVERY == 0:
            gc.collect()
            blocks = sys.getallocatedblocks()
            first = first or blocks
            assert blocks < first + MORE_BLOCKS, f"memory grew by {blocks - first} blocks in {count} inputs"

    return guarded


def child(name: str, seconds: int, seed: int, corpus: Path) -> None:
    """Fuzz one target; libFuzzer ends the process itself, and leaves a finding in a file beside the corpus."""
    atheris = import_module("atheris") if find_spec("atheris") else None
    with atheris.instrument_imports(OURS + THEIRS.get(name, [])) if atheris else nullcontext():
        for module in THEIRS.get(name, []):
            import_module(module)
        target = import_module("tests.fuzz.targets").TARGETS[name]
    run = guard(target.make(), target.limit)
    if not atheris:
        signal.signal(signal.SIGALRM, hang)
        by_chance(run, seconds, seed, corpus, target.longest)
        return
    flags = {
        "max_total_time": max(1, seconds),  # 0 would be without end
        "seed": seed,
        "max_len": target.longest,
        "timeout": HANGS,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{corpus.parent}/{name}.",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in flags.items()), str(corpus)], run)
    atheris.Fuzz()


class HangError(Exception):
    """An input that did not come to an end."""


def hang(_number: int, _frame: object) -> None:
    raise HangError


def by_chance(run: Callable[[bytes], None], seconds: int, seed: int, corpus: Path, longest: int) -> None:
    """Without Atheris: seeds with some of their bytes changed. Prints and leaves behind what libFuzzer would."""
    chance, count, end = random.Random(seed), 0, time.monotonic() + seconds
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir())]
    while time.monotonic() < end:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(8)):
            at, size = chance.randrange(len(data) + 1), chance.choice((0, 1, 1, 1, 4, 30))
            data[at : at + size] = chance.choice((chance.randbytes(size), chance.choice(seeds)[at:][:30], b"\0", b""))
        signal.alarm(HANGS)
        try:
            run(bytes(data[:longest]))
        except Exception as error:
            kind = "timeout" if isinstance(error, HangError) else "crash"
            (corpus.parent / f"{corpus.name}.{kind}").write_bytes(data[:longest])
            raise
        finally:
            signal.alarm(0)
        count += 1
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    say(f"stat::number_of_executed_units: {count}\nstat::peak_rss_mb: {megabytes}")


# --------------------------------------------------------------------------------------- the process that starts them


@dataclass
class Result:
    """What one target came to; no finding: all is well."""

    name: str
    inputs: int = 0
    seconds: float = 0.0
    branches: int = 0
    megabytes: int = 0
    findings: list[Path] = field(default_factory=list)  # each holds an input
    output: str = ""  # of a process that failed

    def __str__(self) -> str:
        rate = self.inputs / max(self.seconds, 0.1)
        cost = f"{self.inputs:>9} inputs {rate:>7.0f}/s {self.branches:>5} branches {self.megabytes:>4} MB"
        return f"{self.name:14} {cost}  {'FINDING' if self.output else 'ok'}"


def fuzz(name: str, seconds: int, seed: int, folder: Path) -> Result:
    corpus = folder / name
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--child", "--seconds", str(seconds), "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--corpus", str(corpus), name],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )

    def last(pattern: str) -> int:
        found = re.findall(pattern, done.stdout)
        return int(found[-1]) if found else 0

    result = Result(name, last(r"executed_units: +(\d+)"), time.monotonic() - started, last(r" cov: (\d+)"))
    result.megabytes = last(r"peak_rss_mb: +(\d+)")
    if done.returncode:
        result.output = done.stdout
        result.findings = sorted(folder.glob(f"{name}.*"))
    return result


def shrink(name: str, data: bytes) -> bytes:
    """A smaller input, as far as a few seconds reach, that raises the same kind of exception."""
    target = import_module("tests.fuzz.targets").TARGETS[name]
    run = guard(target.make(), target.limit)

    def raised(part: bytes) -> str:
        try:
            run(part)
        except Exception as error:  # noqa: BLE001  # whatever it is
            return f"{type(error)} {traceback.extract_tb(error.__traceback__)[-1].lineno}"
        return ""

    end = time.monotonic() + SHRINK_FOR
    wanted = raised(data)
    size = len(data) // 2 if wanted else 0
    while size and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            part = data[:at] + data[at + size :]
            if raised(part) == wanted:
                data = part
            else:
                at += size
        size //= 2
    return data


def tell(result: Result) -> None:
    for path in result.findings:
        data = path.read_bytes()
        if ".crash" in path.name:  # not what hangs or eats memory: it would do so here too
            data = shrink(result.name, data)
        say(f"\n{result.name}: an input of {len(data)} bytes. Once more:")
        say(f".venv/bin/python -m tests.fuzz.fuzz --input {data.hex() or '-'} {result.name}\n")
    # What is left out is libFuzzer's progress.
    lines = [line for line in result.output.splitlines() if not re.match(r"#\d|INFO|MS:|0x|\\|stat::|WARN", line)]
    say("\n".join(lines[-30:]))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder, removed in the end, in which the targets make theirs."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        before, tempfile.tempdir = tempfile.tempdir, made
        try:
            yield Path(made)
        finally:
            tempfile.tempdir = before


def fuzz_all(names: list[str], seconds: int, seed: int) -> int:
    """How many of the targets had a finding."""
    seeds = import_module("tests.fuzz.seeds").SEEDS
    failed = 0
    with temporary_folder() as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        for name in names:
            (folder / name).mkdir()
            for number, data in enumerate(seeds[name]()):
                (folder / name / f"{number:03}").write_bytes(data)
        for result in pool.map(lambda name: fuzz(name, seconds, seed, folder), names):
            say(str(result))
            if result.output:
                failed += 1
                tell(result)
    return failed


def once(name: str, data: bytes) -> None:
    target = import_module("tests.fuzz.targets").TARGETS[name]
    with temporary_folder():
        guard(target.make(), target.limit)(data)
    say("no finding")


def main() -> int:
    targets = import_module("tests.fuzz.targets").TARGETS if "--child" not in sys.argv else None
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--seed", type=int, default=1, help="of the chance; the same seed looks at the same inputs")
    parser.add_argument("--input", metavar="HEX", help="one input; - is the empty one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", choices=targets and [*targets, []], metavar="TARGET")
    given = parser.parse_args()
    logging.disable()  # power_cycle warns of each port that a switch of chance does not turn on
    names: list[str] = given.targets
    if given.child:
        child(names[0], given.seconds, given.seed, given.corpus)
    elif given.input is not None:
        if len(names) != 1:
            parser.error("--input is for one TARGET")
        once(names[0], bytes.fromhex(given.input.removeprefix("-")))
    else:
        return 1 if fuzz_all(names or list(targets or ()), given.seconds, given.seed) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
