"""monitoring/answers: what an agent says becomes values, or a reason; nothing else comes out for any bytes."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.answers import (
    MAX_ANSWER,
    MAX_WORD,
    Answer,
    AnswerError,
    clock_offset,
    is_complete,
    parse,
    request,
)
from monitoring.metrics import AGENT_METRICS, METRICS

MAC = "b8:27:eb:00:00:01"
EVENTS = {
    "time": 1700000000.5,
    "cpu_percent": 12.34,
    "memory_percent": 23.4,
    "disk_percent": 34.5,
    "num_pids": 101,
    "temperature": 45.678,
    "load1": 0.567,
    "uptime": 1234.5,
    "under_voltage": True,
    "under_voltage_seen": 1,
    "throttled": False,
    "throttled_seen": 0,
    "clock_offset": -0.00001234,
    "card_errors": 7,
    "image": "rootfs-1",
    "kernel": "6.1.0-rpi",
    "agent": "2",
    "mac": [MAC, "b8:27:eb:00:00:99"],
}


def http(body: object, head: str = "HTTP/1.0 200 OK\r\n", length: int | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(data) if length is None else length
    return f"{head}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode() + data


def test_a_whole_answer() -> None:
    answer = parse(http(EVENTS), MAC)
    assert set(answer.values) == {metric.name for metric in AGENT_METRICS}
    assert answer.values["temperature"] == 45.7
    assert answer.values["load1"] == 0.57
    assert answer.values["clock_offset"] == -0.000012
    assert [answer.values[name] for name in ("under_voltage", "throttled", "card_errors")] == [1.0, 0.0, 7.0]
    assert answer.words == {"image": "rootfs-1", "kernel": "6.1.0-rpi", "agent": "2"}
    assert (answer.time, answer.refused) == (1700000000.5, ())


def test_the_oldest_agent_and_one_that_closes_without_a_length() -> None:
    five = {name: EVENTS[name] for name in ("time", "cpu_percent", "memory_percent", "disk_percent", "num_pids")}
    assert parse(b"HTTP/1.1 200\r\nServer: x\r\n\r\n" + json.dumps(five).encode(), MAC).values["num_pids"] == 101
    assert parse(http(five)[:-1] + b"}more", MAC).values["num_pids"] == 101


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "closes the connection without an answer"),
        (b"x" * (MAX_ANSWER + 1), "sends more than 16384 bytes"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP: another program listens on its port"),
        (b"HTTP/1.0 200 OK\r\n", "does not speak HTTP: another program listens on its port"),
        (b"HTTP/3.0 200 OK\r\n\r\n{}", "does not speak HTTP: another program listens on its port"),
        (http({}, "HTTP/1.0 302 Found\r\nLocation: /\r\n"), "redirects elsewhere (HTTP 302), which is not followed"),
        (http({}, "HTTP/1.0 500 Oh\r\n"), "refuses with HTTP 500"),
        (http({}, length=9), "ends after 2 of 9 bytes"),
        (http(b" <html>"), "answers HTML: another program listens on its port"),
        (http(b"{'a': 1}"), "answers what is no JSON: another program listens on its port"),
        (http(b"\xff\xfe"), "answers what is no JSON: another program listens on its port"),
        (http(b"[" * 16000), "answers what is no JSON: another program listens on its port"),
        (http([1]), "answers JSON that is no object: another program listens on its port"),
        (http({"time": 1}), "answers JSON without any measurement: another program listens on its port"),
        (
            http({**EVENTS, "mac": "DC:A6:32:00:00:02"}),
            "answers for dc:a6:32:00:00:02: two Pis have this address, or its network card was changed",
        ),
        (
            http({**EVENTS, "mac": ["\x1b[2J"]}),
            "answers for another Pi: two Pis have this address, or its network card was changed",
        ),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse(data, MAC)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_percent", "12"),
        ("cpu_percent", True),
        ("cpu_percent", 100.5),
        ("cpu_percent", [1]),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("uptime", -1),
        ("num_pids", 10**400),
        ("under_voltage", 0.5),
        ("under_voltage", 2),
    ],
)
def test_a_value_that_is_no_measurement_is_left_out_and_named(name: str, value: object) -> None:
    answer = parse(http({**EVENTS, name: value}), MAC)
    assert answer.refused == (name,)
    assert set(answer.values) == {metric.name for metric in AGENT_METRICS} - {name}


def test_what_the_agent_could_not_find_out_is_left_out_without_a_word() -> None:
    answer = parse(http({**EVENTS, "temperature": None, "kernel": None, "time": 1e300, "mac": None}), MAC)
    assert "temperature" not in answer.values
    assert (answer.refused, answer.time) == ((), None)
    assert set(answer.words) == {"image", "agent"}


def test_words_are_short_and_printable() -> None:
    words = parse(http({**EVENTS, "kernel": "\x1b[2J\ud800" + "x" * 100}), MAC).words
    assert words["kernel"] == "?[2J?" + "x" * (MAX_WORD - 5)


def test_complete_is_what_the_length_says() -> None:
    data = http(EVENTS)
    assert not any(is_complete(data[:size]) for size in range(len(data)))
    assert is_complete(data)
    assert not is_complete(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{}")


def test_the_clock_is_seen_from_here_unless_the_pi_knows_it_finer() -> None:
    assert clock_offset(None, None, 10.0, 10.2) is None
    assert clock_offset(0.5, None, 10.0, 10.2) == 0.5
    assert clock_offset(None, 12.1, 10.0, 10.2) == pytest.approx(2.0)
    assert clock_offset(0.0003, 10.15, 10.0, 10.2) == 0.0003
    assert clock_offset(0.0003, 12.1, 10.0, 10.2) == pytest.approx(2.0)  # what it believes is wrong


def test_the_question_is_http() -> None:
    assert request("172.30.4.13").startswith(b"GET /events HTTP/1.0\r\nHost: 172.30.4.13\r\n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(st.sampled_from([*METRICS, "time", "mac", "kernel", "image", "agent"]), json_values)


@given(st.binary(max_size=200) | objects.map(http) | objects.map(lambda each: http(each)[:-3]))
def test_any_bytes_are_an_answer_or_a_reason(data: bytes) -> None:
    answer = None
    with contextlib.suppress(AnswerError):
        answer = parse(data, MAC)
    if answer is None:
        return
    assert isinstance(answer, Answer)
    assert all(METRICS[name].accepts(value) for name, value in answer.values.items())
    assert all(word.isprintable() and len(word) <= MAX_WORD for word in answer.words.values())
