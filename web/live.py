"""Server-sent events: a snapshot first, then what changed. One picture is taken for all streams, however many watch.

GET /events answers `snapshot` (the whole picture), then `delta`s with ids; `Last-Event-ID` goes on where a stream
broke off, where that is still known. A comment every HEARTBEAT seconds finds browsers that have gone.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from flask import Blueprint, Response, current_app, request

from web.auth import gate
from web.limits import MAX_STREAMS
from web.views import Json

log = logging.getLogger("piman.web")

INTERVAL = 0.5  # seconds between two looks, while anybody watches
HEARTBEAT = 15.0
KEPT = 256  # deltas that a stream may have missed
RECHECK = 10.0  # between two looks whether a stream's session is still one

blueprint = Blueprint("live", __name__)


@blueprint.get("/events")
def events() -> Response:
    """The stream of the page."""
    live: Live = current_app.extensions["piman"].live
    if not live.enter():
        return Response("too many pages are open\n", 503, {"Retry-After": "30"}, mimetype="text/plain")
    gone = request.environ.get("waitress.client_disconnected", lambda: False)
    doors = gate()
    cookie, authorization = request.cookies.get(doors.cookie, ""), request.headers.get("Authorization", "")
    known = now_and_then(lambda: not doors.is_shut and doors.caller(cookie, authorization) is not None)
    stream = live.stream(request.headers.get("Last-Event-ID", ""), gone, known)
    response = Response(stream, mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx in between must not collect
    response.call_on_close(live.leave)
    return response


def now_and_then(ask: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """The same question, answered by the last answer for RECHECK seconds; the first was yes."""
    asked, answer = clock(), True

    def latest() -> bool:
        nonlocal asked, answer
        if clock() - asked >= RECHECK:
            asked, answer = clock(), ask()
        return answer

    return latest


def changes(before: Json, after: Json) -> Json:
    """What is other in `after`: changed and removed Pis, new events, and every other part that is not the same."""
    delta: Json = {}
    old, new = _pis(before), _pis(after)
    changed = {mac: view for mac, view in new.items() if old.get(mac) != view}
    removed = [mac for mac in old if mac not in new]
    if changed:
        delta["pis"] = changed
    if removed:
        delta["removed"] = removed
    last = max((each["id"] for each in _events(before)), default=0)
    news = [each for each in _events(after) if each["id"] > last]
    if news:
        delta["events"] = news
    for part in after.keys() - {"now", "pis", "events"}:
        if before.get(part) != after[part]:
            delta[part] = after[part]
    return delta


def _pis(picture: Json) -> Mapping[str, Json]:
    found = picture.get("pis", {})
    assert isinstance(found, dict)
    return found


def _events(picture: Json) -> list[dict[str, int]]:
    found = picture.get("events", [])
    assert isinstance(found, list)
    return found


def frame(event: str, number: str, data: Json) -> bytes:
    """One event as it is sent (HTML, "Server-sent events")."""
    return f"event: {event}\nid: {number}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Live:
    """The pictures that all streams share. `_changed` (a Condition) guards every attribute.

    A thread looks while there are streams. A stream holds no queue of its own: it remembers the number of the last
    delta it sent, and begins anew with a snapshot where that is no longer among those kept.
    """

    def __init__(self, picture: Callable[[], Json], interval: float = INTERVAL) -> None:
        self._picture = picture
        self._interval = interval
        self._changed = threading.Condition()
        self._streams = 0
        self._closed = False
        self._looks = False  # the thread runs
        self._fresh = False  # it has looked since it began
        self._run = secrets.token_hex(4)  # ids of another process mean nothing to us
        self._number = 0
        self._last: Json = {}
        self._snapshot = b""  # the frame of `_last`, made when first asked for
        self._deltas: deque[tuple[int, bytes]] = deque(maxlen=KEPT)

    def close(self) -> None:
        """End every stream soon."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def enter(self) -> bool:
        """Take a place; False where all are taken. `leave` gives it back."""
        with self._changed:
            if self._streams >= MAX_STREAMS or self._closed:
                return False
            self._streams += 1
            if not self._looks:
                self._looks = True
                threading.Thread(target=self._watch, name="web-live", daemon=True).start()
            return True

    def leave(self) -> None:
        with self._changed:
            self._streams -= 1
            self._changed.notify_all()

    def look(self) -> None:
        """Take a picture, and tell the streams what is other in it."""
        picture = self._picture()
        with self._changed:
            delta = changes(self._last, picture)
            news, self._fresh = bool(delta) or not self._fresh, True
            if delta:
                self._number += 1
                self._last, self._snapshot = picture, b""
                data = frame("delta", self._id(self._number), {"now": picture["now"], **delta})
                self._deltas.append((self._number, data))
            if news:
                self._changed.notify_all()

    def stream(
        self, last_id: str, gone: Callable[[], bool], known: Callable[[], bool] = lambda: True
    ) -> Iterator[bytes]:
        """What one browser is sent, until it has gone, its session is over or we are closed."""
        at = self._number_of(last_id)
        yield b"retry: 2000\n\n"
        while True:
            at, data = self._next(at, gone)
            if data is None or not known():
                return
            yield data

    def _id(self, number: int) -> str:
        return f"{self._run}-{number}"

    def _number_of(self, last_id: str) -> int:
        """The number in an id of ours, 0 for any other."""
        run, _, number = last_id.partition("-")
        return int(number) if run == self._run and number.isdecimal() and len(number) < 16 else 0

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # the page stands still, the next look may do better
                log.exception("no picture of the rack")
            with self._changed:
                self._changed.wait_for(lambda: self._closed or not self._streams, self._interval)
                if self._closed or not self._streams:
                    self._looks = self._fresh = False
                    return

    def _next(self, at: int, gone: Callable[[], bool]) -> tuple[int, bytes | None]:
        """Wait for something after the delta `at`: its number and frames, a comment after silence, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._fresh and self._number != at), HEARTBEAT)
            if self._closed or gone():
                return at, None
            if self._number == at or not self._fresh:
                return at, b": still here\n\n"
            missed = [data for number, data in self._deltas if number > at]
            if 0 < at < self._number and len(missed) == self._number - at:
                return self._number, b"".join(missed)
            self._snapshot = self._snapshot or frame("snapshot", self._id(self._number), self._last)
            return self._number, self._snapshot
