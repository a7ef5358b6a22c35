"""web.live: what a stream of events says, and to how many."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from web import live as live_module
from web.live import Live, changes, now_and_then
from web.views import Json

STILL_THERE = lambda: False  # noqa: E731  # a browser that has not gone


def picture(number: int = 0, **more: object) -> Json:
    return {"now": float(number), "rack": {}, "pis": {"a": {"n": number}, "b": {"n": 0}}, "events": [], **more}


class Camera:
    """Gives the picture it holds."""

    def __init__(self) -> None:
        self.shown = picture()
        self.taken = 0

    def __call__(self) -> Json:
        self.taken += 1
        return self.shown


def read(frame: bytes) -> tuple[str, str, Json]:
    """An event's kind, id and data."""
    fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
    return fields["event"], fields["id"], json.loads(fields["data"])


@pytest.fixture
def camera() -> Camera:
    return Camera()


@pytest.fixture
def live(camera: Camera) -> Iterator[Live]:
    live = Live(camera, interval=0.01)
    yield live
    live.close()


def watch(live: Live, last_id: str = "") -> Iterator[bytes]:
    assert live.enter()
    stream = live.stream(last_id, STILL_THERE)
    assert next(stream) == b"retry: 2000\n\n"
    return stream


def test_what_changed_is_told_and_nothing_else() -> None:
    before = picture(1, events=[{"id": 4}], jobs={})
    assert changes(before, {**before, "now": 9.0}) == {}
    after = picture(2, events=[{"id": 4}, {"id": 5}], jobs={"j": {}})
    del after["pis"]["b"]  # type: ignore[attr-defined]
    assert changes(before, after) == {
        "pis": {"a": {"n": 2}}, "removed": ["b"], "events": [{"id": 5}], "jobs": {"j": {}}
    }  # fmt: skip


def test_a_snapshot_comes_first_then_deltas(live: Live, camera: Camera) -> None:
    stream = watch(live)
    kind, first, data = read(next(stream))
    assert (kind, data) == ("snapshot", camera.shown)
    camera.shown = picture(7)
    kind, second, data = read(next(stream))
    assert (kind, data) == ("delta", {"now": 7.0, "pis": {"a": {"n": 7}}})
    assert first != second


def test_a_stream_goes_on_where_it_broke_off(live: Live, camera: Camera) -> None:
    other = watch(live)
    _kind, first, _data = read(next(other))
    for number in (1, 2):
        camera.shown = picture(number)
        read(next(other))
    missed = next(watch(live, first)).split(b"\n\n")
    assert [read(each)[2]["now"] for each in missed if each] == [1.0, 2.0]


@pytest.mark.parametrize("last_id", ["x", "-1", "1", "deadbeef-1", "9" * 50, "{run}-", "{run}-x", "{run}-999"])
def test_ids_that_mean_nothing_begin_anew(live: Live, camera: Camera, last_id: str) -> None:
    run = live._id(0).partition("-")[0]
    assert read(next(watch(live, last_id.format(run=run))))[0] == "snapshot"


def test_who_missed_too_much_begins_anew(live: Live, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = watch(live)
    _kind, first, _data = read(next(stream))
    live._deltas = type(live._deltas)(maxlen=2)
    for number in range(1, 5):
        camera.shown = picture(number)
        live.look()
    assert read(next(watch(live, first)))[0] == "snapshot"


def test_there_is_one_look_for_all_and_none_for_nobody(camera: Camera) -> None:
    live = Live(camera, interval=0.05)
    streams = [watch(live) for _ in range(20)]
    assert {read(next(stream))[0] for stream in streams} == {"snapshot"}
    began, taken = time.monotonic(), camera.taken
    time.sleep(0.3)
    assert camera.taken - taken <= (time.monotonic() - began) / 0.05 + 1
    for _ in streams:
        live.leave()
    time.sleep(0.1)
    taken = camera.taken
    time.sleep(0.2)
    assert camera.taken == taken
    live.close()


def test_a_picture_is_of_now_after_a_pause(live: Live, camera: Camera) -> None:
    read(next(watch(live)))
    live.leave()
    time.sleep(0.1)
    camera.shown = picture(5)
    assert read(next(watch(live)))[2]["now"] == 5.0


def test_places_are_limited_and_given_back(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MAX_STREAMS", 2)
    assert live.enter()
    assert live.enter()
    assert not live.enter()
    live.leave()
    assert live.enter()


def test_silence_is_broken_by_a_comment_and_the_gone_are_let_go(
    live: Live, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "HEARTBEAT", 0.05)
    gone = threading.Event()
    assert live.enter()
    stream = live.stream("", gone.is_set)
    next(stream)
    read(next(stream))
    assert next(stream) == b": still here\n\n"
    gone.set()
    assert list(stream) == []


def test_a_stream_ends_with_its_session(live: Live, camera: Camera) -> None:
    assert live.enter()
    sessions = [True, True, False]
    stream = live.stream("", STILL_THERE, lambda: sessions.pop(0))
    assert [next(stream)[:5] for _ in range(2)] == [b"retry", b"event"]
    camera.shown = picture(1)
    assert next(stream).startswith(b"event: delta")
    camera.shown = picture(2)
    assert list(stream) == []


def test_a_question_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, answers = [0.0], [False, True]
    monkeypatch.setattr(live_module, "RECHECK", 10.0)
    latest = now_and_then(lambda: answers.pop(0), lambda: now[0])
    found = []
    for when in (0.0, 9.0, 10.0, 19.0, 20.0):
        now[0] = when
        found.append(latest())
    assert found == [True, True, False, False, True]


def test_closing_ends_every_stream(live: Live) -> None:
    stream = watch(live)
    next(stream)
    live.close()
    assert list(stream) == []
    assert not live.enter()


def test_a_picture_that_fails_is_taken_again(live: Live, camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    shown = camera.shown
    camera.shown = {"pis": 0}  # no picture at all
    stream = watch(live)
    time.sleep(0.05)
    camera.shown = shown
    assert read(next(stream))[0] == "snapshot"
    assert "no picture of the rack" in caplog.text
