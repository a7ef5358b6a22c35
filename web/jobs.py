"""Orders that take their time, each in a thread of its own, with steps that the page shows. Knows nothing of Pis."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from web.views import Json

log = logging.getLogger("piman.web")

MAX_RUNNING = 16
KEPT = 50
MAX_STEPS = 500

Tell = Callable[[str, str], None]  # target, what happens to it now


class TooManyError(Exception):
    """So many orders are under way that another must wait."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one target."""

    target: str
    ok: bool
    text: str


@dataclass(slots=True)
class Job:
    """One order. Only `Jobs` changes it, under its lock."""

    id: str
    kind: str
    who: str
    targets: tuple[str, ...]
    began: float
    ended: float = 0.0
    state: str = "running"  # done, partly, failed
    error: str = ""
    steps: list[Json] = field(default_factory=list)
    results: tuple[Result, ...] = ()

    def view(self) -> Json:
        return {
            "id": self.id,
            "kind": self.kind,
            "who": self.who,
            "targets": list(self.targets),
            "state": self.state,
            "error": self.error,
            "began": self.began,
            "ended": self.ended or None,
            "steps": list(self.steps),
            "results": [{"target": each.target, "ok": each.ok, "text": each.text} for each in self.results],
        }


class Jobs:
    """The orders of this process. `_lock` guards the table and what is in it.

    finished    hears of each that has ended, for the audit trail
    """

    def __init__(self, finished: Callable[[Job], None]) -> None:
        self._finished = finished
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}

    def start(self, kind: str, who: str, targets: Sequence[str], work: Callable[[Tell], Sequence[Result]]) -> Json:
        """Let a thread do it; the job as it begins. TooManyError."""
        job = Job(secrets.token_hex(8), kind, who, tuple(targets), time.time())
        with self._lock:
            if sum(each.state == "running" for each in self._jobs.values()) >= MAX_RUNNING:
                raise TooManyError(f"{MAX_RUNNING} orders are under way; wait until one of them is done")
            self._jobs[job.id] = job
            over = [each.id for each in self._jobs.values() if each.state != "running"][
                : max(0, len(self._jobs) - KEPT)
            ]
            for number in over:
                del self._jobs[number]
            view = job.view()
        # No daemon: a process that ends lets a port that is off come on again first.
        threading.Thread(target=self._work, args=(job, work), name=f"job-{kind}").start()
        return view

    def _work(self, job: Job, work: Callable[[Tell], Sequence[Result]]) -> None:
        def tell(target: str, text: str) -> None:
            with self._lock:
                if len(job.steps) < MAX_STEPS:
                    job.steps.append({"when": time.time(), "target": target, "text": text})

        results: Sequence[Result] = ()
        error = ""
        try:
            results = work(tell)
        except Exception as problem:
            log.exception("%s of %s", job.kind, ", ".join(job.targets))
            error = str(problem) or type(problem).__name__
        good = sum(each.ok for each in results)
        with self._lock:
            job.results, job.error, job.ended = tuple(results), error, time.time()
            job.state = "failed" if error or not good else "done" if good == len(results) else "partly"
        self._finished(job)

    def views(self) -> dict[str, Json]:
        """Every job that is remembered, the oldest first."""
        with self._lock:
            return {number: job.view() for number, job in self._jobs.items()}

    def view(self, number: str) -> Json | None:
        with self._lock:
            return self._jobs[number].view() if number in self._jobs else None
