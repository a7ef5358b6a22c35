"""The fuzzer itself: each target takes its seeds, and each kind of finding is found."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fuzz import fuzz, targets
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, join, split


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_no_findings(name: str) -> None:
    with fuzz.temporary_folder():
        run = fuzz.guard(TARGETS[name].make(), TARGETS[name].limit)
        for data in SEEDS[name]():
            assert len(data) <= TARGETS[name].longest
            run(data)


def test_a_row_of_datagrams_comes_back() -> None:
    events = [(0, b""), (255, b"ab"), (7, bytes(700))]
    assert list(split(join(*events))) == events
    assert list(split(join(*events)[:-1])) == [*events[:2], (7, bytes(699))]


def test_a_slow_input_is_a_finding() -> None:
    def run(data: bytes) -> None:
        end = time.process_time() + data[0] / 100
        while time.process_time() < end:
            pass

    guarded = fuzz.guard(run, 0.05)
    guarded(b"\0")
    with pytest.raises(AssertionError, match=r"takes 0\.\d\d s"):
        guarded(b"\x0a")


def test_memory_that_grows_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "LOOK_EVERY", 10)
    kept: list[list[object]] = []
    guarded = fuzz.guard(lambda _data: kept.append([object() for _ in range(5000)]), 1.0)
    for _ in range(10):  # the first look is what later ones are held against
        guarded(b"")
    with pytest.raises(AssertionError, match="memory grew by"):
        [guarded(b"") for _ in range(100)]


def test_a_finding_by_chance_is_left_behind_and_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: bytes) -> None:
        assert data.count(b"x") < 3

    corpus = tmp_path / "planted"
    corpus.mkdir()
    (corpus / "000").write_bytes(b"one x, two: x")
    with pytest.raises(AssertionError):
        fuzz.by_chance(run, 60, 1, corpus, 100)
    found = (tmp_path / "planted.crash").read_bytes()
    assert found.count(b"x") >= 3
    monkeypatch.setattr(targets, "TARGETS", {"planted": SimpleNamespace(make=lambda: run, limit=1.0)})
    assert fuzz.shrink("planted", found) == b"xxx"


def test_an_input_without_end_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_data: bytes) -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz, "HANGS", 1)
    corpus = tmp_path / "planted"
    corpus.mkdir()
    (corpus / "000").write_bytes(b"x")
    before = signal.signal(signal.SIGALRM, fuzz.hang)
    try:
        with pytest.raises(fuzz.HangError):
            fuzz.by_chance(run, 60, 1, corpus, 100)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "planted.timeout").exists()


def test_one_input_from_the_command_line() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--input", "000102", "dhcp_guid"]
    done = subprocess.run(command, cwd=fuzz.ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "no finding\n")
