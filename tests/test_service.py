"""How the service threads start, stop and fail; signals go to this very process."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from utility.service import (
    Report,
    Services,
    Stage,
    StateHeldError,
    Waker,
    notify_systemd,
    only_server,
    run_services,
    server_runs,
)

ROOT = Path(__file__).resolve().parents[1]


class Worker:
    """A service that waits for its waker, as the real ones do, and then does what the test wants."""

    def __init__(self, name: str, work: Callable[[], None] = lambda: None, stops: bool = True) -> None:
        self.name = name
        self.work = work
        self.stops = stops
        self.waker = Waker()
        self.thread_name = ""
        self.stopped = 0

    def run(self) -> None:
        self.thread_name = threading.current_thread().name
        try:
            self.work()
            select.select([self.waker], [], [])
        finally:
            self.waker.close()

    def stop(self) -> None:
        self.stopped += 1
        if self.stops:
            self.waker.wake()


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def nothing() -> None:
    return


def send(*numbers: int) -> Callable[[], None]:
    def ready() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return ready


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


# --------------------------------------------------------------------------------------------------------- run_services


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all(number: int) -> None:
    workers = [Worker("dhcp"), Worker("tftp")]
    before = handlers()
    started = time.monotonic()
    assert run_services(workers, nothing, send(number)) == ""
    assert time.monotonic() - started < 1
    assert [(worker.thread_name, worker.stopped) for worker in workers] == [("dhcp", 1), ("tftp", 1)]
    assert handlers() == before
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"dhcp", "tftp"})


def test_a_hang_up_reloads_and_goes_on() -> None:
    reloads: list[int] = []

    def reload() -> None:
        reloads.append(1)
        os.kill(os.getpid(), signal.SIGHUP if len(reloads) < 3 else signal.SIGTERM)

    assert run_services([Worker("dhcp")], reload, send(signal.SIGHUP)) == ""
    assert len(reloads) == 3


def test_a_hang_up_and_a_stop_at_once_is_a_stop() -> None:
    assert run_services([Worker("dhcp")], fail(AssertionError()), send(signal.SIGHUP, signal.SIGTERM)) == ""


@pytest.mark.parametrize(
    ("error", "report"),
    [(OSError("no such device"), "tftp: no such device"), (KeyError(), "tftp: KeyError")],
)
def test_the_first_failure_stops_all_and_is_named(
    error: Exception, report: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Worker("dhcp")
    assert run_services([other, Worker("tftp", fail(error))], nothing, nothing) == report
    assert other.stopped == 1
    assert [(r.name, r.message, bool(r.exc_info)) for r in caplog.records] == [("piman.service", "tftp failed", True)]


def test_a_service_that_ends_by_itself_is_a_failure() -> None:
    worker = Worker("ntp")
    worker.waker.wake()
    assert run_services([worker, Worker("dhcp")], nothing, nothing) == "ntp ended by itself"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_service_that_asks_python_to_exit_is_a_failure() -> None:
    assert run_services([Worker("ntp", fail(SystemExit(0)))], nothing, nothing) == "ntp ended by itself"


def test_a_service_that_does_not_stop_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    stubborn, second, good = Worker("tcp", stops=False), Worker("web", stops=False), Worker("dhcp")
    started = time.monotonic()
    assert run_services([stubborn, second, good], nothing, send(signal.SIGTERM), grace=0.1) == ""
    assert time.monotonic() - started < 1
    assert [record.message for record in caplog.records] == ["tcp did not stop in time", "web did not stop in time"]
    for worker in (stubborn, second):
        worker.waker.wake()


def test_a_service_takes_anothers_place_while_the_rest_goes_on() -> None:
    old, new, other = Worker("ntp"), Worker("ntp"), Worker("dhcp")
    services = Services([old, other])

    def reload() -> None:
        assert services.retire(old)
        assert (old.stopped, other.stopped) == (1, 0)
        services.add(new)
        os.kill(os.getpid(), signal.SIGTERM)

    assert services.run(reload, services.wake) == ""
    assert (old.stopped, new.stopped, other.stopped) == (1, 1, 1)
    assert new.thread_name == "ntp"


def test_a_service_that_does_not_retire_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stubborn = Worker("tcp", stops=False)
    services = Services([stubborn, Worker("dhcp")])

    def reload() -> None:
        assert not services.retire(stubborn, grace=0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    assert services.run(reload, services.wake) == ""
    assert [record.message for record in caplog.records] == ["tcp did not stop in time"]
    stubborn.waker.wake()


@pytest.mark.parametrize("where", ["ready", "reload"])
def test_what_ready_and_reload_raise_comes_out_after_the_services_were_stopped(where: str) -> None:
    worker = Worker("dhcp")
    before = handlers()
    ready = fail(ValueError("oops")) if where == "ready" else send(signal.SIGHUP)
    with pytest.raises(ValueError, match="oops"):
        run_services([worker], fail(ValueError("oops")), ready)
    assert worker.stopped == 1
    assert handlers() == before


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "tftp":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    workers = [Worker("dhcp"), Worker("tftp")]
    with pytest.raises(RuntimeError, match="can't start"):
        run_services(workers, nothing, nothing)
    assert [worker.stopped for worker in workers] == [1, 1]
    workers[1].waker.close()


# ---------------------------------------------------------------------------------------------------------------- waker


def test_a_waker_wakes_until_it_is_drained() -> None:
    waker = Waker()
    assert select.select([waker], [], [], 0)[0] == []
    for _ in range(3):
        waker.wake()
    assert select.select([waker], [], [], 0)[0] == [waker]
    waker.drain()
    waker.drain()
    assert select.select([waker], [], [], 0)[0] == []
    waker.close()


def test_a_waker_is_never_too_full_and_may_be_closed() -> None:
    waker = Waker()
    for _ in range(5000):
        waker.wake()
    waker.drain()
    assert select.select([waker], [], [], 0)[0] == []
    waker.close()
    waker.close()
    waker.wake()


# -------------------------------------------------------------------------------------------------------------- systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@piman-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")


def test_a_deaf_systemd_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    notify_systemd("STOPPING=1")
    assert [(record.levelno, record.message.split(":")[0]) for record in caplog.records] == [
        (logging.WARNING, "systemd could not be told STOPPING=1")
    ]


def test_stages_are_in_the_order_of_a_boot_and_print_as_words() -> None:
    assert " ".join(Stage) == "discover lease firmware kernel hello format image boot up failed"
    assert Report("b8:27:eb:00:00:01").facts == {}


def test_a_signal_that_another_thread_gets_is_not_lost() -> None:
    """SIGTERM close behind SIGHUP goes to a thread that has nothing pending; the main one must still wake."""
    program = """
import threading, time
from utility.service import run_services
class Idle:
    name = "idle"
    def __init__(self): self.end = threading.Event()
    def run(self): self.end.wait()
    def stop(self): self.end.set()
run_services([Idle() for _ in range(8)], lambda: None, lambda: print("ready", flush=True))
"""
    for _ in range(30):
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(timeout=10) == 0
            finally:
                process.kill()


def test_one_server_holds_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert not server_runs(state)
    with only_server(state):
        assert server_runs(state)
        with pytest.raises(StateHeldError, match=f"process {os.getpid()}"), only_server(state):
            pytest.fail("two hold it")
    assert not server_runs(state)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateHeldError, match="cannot be written there"), only_server(tmp_path / "file" / "state"):
        pytest.fail("it holds nothing")
