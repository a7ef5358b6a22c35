"""Tests of utility.rest against a stand-in server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.stand_in import Answer, StandIn, make_certificate
from utility.rest import RestClient, RestError


def echo(method: str, path: str, body: object, headers: dict[str, str]) -> Answer:
    return 200, [method, path, body, headers.get("Authorization"), headers.get("Cookie"), headers.get("X-CSRF-Token")]


def test_json_goes_both_ways_and_cookies_are_kept() -> None:
    given = {"Set-Cookie": "TOKEN=abc; path=/; secure", "X-CSRF-Token": "xyz"}
    with StandIn(echo, headers=given) as it:
        client = RestClient(it.url, headers={"Authorization": "Basic x"})
        assert client.ask("POST", "/a", {"b": 1}) == ["POST", "/a", {"b": 1}, "Basic x", None, None]
        assert client.ask("GET", "/c") == ["GET", "/c", None, "Basic x", "TOKEN=abc", "xyz"]
        client.close()


def test_an_empty_answer_is_none() -> None:
    with StandIn(lambda *_: (204, None)) as it:
        client = RestClient(it.url)
        assert client.ask("PUT", "/") is None
        client.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((401, {"message": "no"}), "does not let us in: are user and password right, and may that user change ports?"),
        ((403, None), "does not let us in: are user and password right, and may that user change ports?"),
        ((400, {"detail": "no such\x1b command", "message": "Bad Request"}), "answers 400: no such? command"),
        ((400, {"meta": {"rc": "error", "msg": "api.err.Invalid"}}), "answers 400: api.err.Invalid"),
        ((500, b"<html>"), "answers 500"),
        ((404, []), "answers 404"),
        ((302, {"meta": {}}), "answers 302"),
        ((200, b"<html>"), "answers, but not in JSON: is it what `driver:` says?"),
    ],
)
def test_what_is_no_answer(answer: Answer, text: str) -> None:
    with StandIn(lambda *_: answer) as it:
        client = RestClient(it.url)
        with pytest.raises(RestError) as caught:
            client.ask("GET", "/")
        client.close()
    assert str(caught.value) == text
    assert caught.value.status == answer[0]


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        client = RestClient(f"http://127.0.0.1:{held.getsockname()[1]}", timeout=2)
        with pytest.raises(RestError, match=r"^cannot be asked: Connection refused$"):
            client.ask("GET", "/")


def test_a_certificate_is_taken_by_its_fingerprint_and_before_a_word_is_sent(tmp_path: Path) -> None:
    certificate, fingerprint = make_certificate(tmp_path)
    with StandIn(echo, certificate) as it:
        with pytest.raises(RestError, match=rf"not vouched for \(.*\).*add `fingerprint: {fingerprint}`$"):
            RestClient(it.url).ask("POST", "/", "secret")
        with pytest.raises(
            RestError, match=rf"is not the one of `fingerprint:` but {fingerprint}; is somebody between"
        ):
            RestClient(it.url, "ab" * 32).ask("POST", "/", "secret")
        assert it.asked == []
        client = RestClient(it.url, fingerprint)
        assert client.ask("POST", "/", "secret")
        assert client.ask("GET", "/")
        client.close()
