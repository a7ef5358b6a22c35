"""Channels: what a message says, when it is sent, and real servers that take it, refuse it, hang."""

from __future__ import annotations

import json
import socket
import stat
import time
from dataclasses import replace
from email.message import Message as Mail
from pathlib import Path

import pytest

from monitoring.alerts import Alert
from monitoring.channels import (
    MAX_LINES,
    ChannelError,
    Message,
    Pace,
    Told,
    Tries,
    alert_json,
    compose,
    deliver,
    mail,
    slack_body,
    wants,
    webhook_body,
)
from tests.alert_servers import Mailbox, Webhook, certificate
from utility.config import Channel
from utility.rules import AlertSeverity

ALERT = Alert(
    7, "temperature", "b8:27:eb:01:02:03", "pi3", AlertSeverity.WARNING, 1000.0, 1120.0, "it is at 83 °C", 83.0
)
GRAVE = replace(ALERT, id=8, name="pi4", rule="up", severity=AlertSeverity.CRITICAL, text="it is <down>")
OVER = replace(ALERT, resolved_at=1240.0)
ONE = Message("1-1", "rack", 1120.0, (Told(ALERT, over=False),))
SLACK = Channel("slack", "slack")
MAIL = Channel("mail", "email", to=("a@example.org", "b@example.org"), sender="piman@example.org")


def test_one_alert_is_its_own_title() -> None:
    assert ONE.title == "rack: warning: pi3: it is at 83 °C"
    over = Message("1-1", "rack", 1240.0, (Told(OVER, over=True),))
    assert over.title == "rack: over: pi3: it is at 83 °C; lasted 4m"
    assert over.lines == ["\N{WHITE HEAVY CHECK MARK} over: pi3: it is at 83 °C; lasted 4m"]
    gone = Told(replace(OVER, ended="its rule is gone"), over=True)
    assert gone.line.endswith("lasted 4m (its rule is gone)")


def test_several_are_listed_the_gravest_first_and_what_is_over_last() -> None:
    message = Message("1-3", "rack", 1240.0, (Told(OVER, over=True), Told(ALERT, over=False), Told(GRAVE, over=False)))
    assert message.title == "rack: 2 alerts, 1 over"
    assert [line[2:] for line in message.lines] == [
        "critical: pi4: it is <down>",
        "warning: pi3: it is at 83 °C",
        "over: pi3: it is at 83 °C; lasted 4m",
    ]
    assert Message("1-2", "rack", 1.0, message.told[:2]).title == "rack: 1 alert, 1 over"


def test_a_long_list_is_cut() -> None:
    message = Message("1-99", "rack", 0.0, tuple(Told(ALERT, over=False) for _ in range(99)))
    assert len(message.lines) == MAX_LINES + 1
    assert message.lines[-1] == "... and 59 more; `piman alerts` lists them"


def test_the_body_for_slack() -> None:
    assert json.loads(slack_body(ONE)) == {"text": "\N{LARGE ORANGE CIRCLE} rack: warning: pi3: it is at 83 °C"}
    two = Message("1-2", "rack", 0.0, (Told(ALERT, over=False), Told(GRAVE, over=False)))
    text = json.loads(slack_body(two))["text"]
    assert text.splitlines()[0] == "*rack: 2 alerts*"
    assert "it is &lt;down&gt;" in text
    assert json.loads(slack_body(Message("test", "rack", 0.0, ())))["text"].startswith("*rack: a test")


def test_the_body_of_a_webhook() -> None:
    body = json.loads(webhook_body(Message("3-4", "rack", 9.0, (Told(OVER, over=True),))))
    assert (body["version"], body["id"], body["site"], body["when"], body["test"]) == (1, "3-4", "rack", 9.0, False)
    assert body["alerts"] == [{"event": "over", **alert_json(OVER)}]
    assert body["alerts"][0]["state"] == "resolved"
    assert json.loads(webhook_body(Message("test", "rack", 0.0, ())))["test"] is True


def test_a_mail() -> None:
    made = mail(MAIL, ONE)
    assert (made["From"], made["To"]) == ("piman@example.org", "a@example.org, b@example.org")
    assert made["Subject"] == "[piman] rack: warning: pi3: it is at 83 °C"
    assert made["Message-ID"] == "<piman.1-1@example.org>"
    assert made["Auto-Submitted"] == "auto-generated"
    evil = replace(ALERT, name="pi3\r\nBcc: eve@example.org")
    assert "Bcc" not in mail(MAIL, Message("1-1", "rack", 0.0, (Told(evil, over=False),)))


def test_who_wants_what() -> None:
    assert wants(SLACK, ALERT, over=True)
    assert not wants(replace(SLACK, resolved=False), ALERT, over=True)
    assert not wants(replace(SLACK, severity=AlertSeverity.CRITICAL), ALERT, over=False)
    assert wants(replace(SLACK, severity=AlertSeverity.CRITICAL), GRAVE, over=False)


def test_a_message_is_numbered_by_its_notices() -> None:
    assert compose("rack", [(3, Told(ALERT, over=False)), (9, Told(GRAVE, over=False))], 1.0).id == "3-9"


@pytest.mark.parametrize(
    ("tries", "due"),
    [
        (Tries(), 105),
        (Tries(sent_at=90), 120),
        (Tries(failed_at=100, failures=1), 105),
        (Tries(failed_at=104, failures=1), 106),
        (Tries(failed_at=104, failures=4), 120),
        (Tries(failed_at=104, failures=50), 404),
        (Tries(failed_at=104, failures=1, retry_after=60), 164),
        (Tries(failed_at=104, failures=1, retry_after=1e9), 404),
    ],
)
def test_when_to_send(tries: Tries, due: float) -> None:
    assert tries.next_try(100, Pace()) == due


# ------------------------------------------------------------------------------------------------------- real servers


@pytest.mark.parametrize("kind", ["slack", "webhook"])
def test_a_webhook_takes_a_message(kind: str) -> None:
    with Webhook() as webhook:
        deliver(Channel("x", kind, url=webhook.url, secret="" if kind == "slack" else "hushtoken"), ONE)
        ((path, headers, body),) = webhook.asked
    assert path == "/hooks/hush-hush"
    assert headers["Content-Type"] == "application/json"
    assert headers.get("Authorization") == (None if kind == "slack" else "Bearer hushtoken")
    assert "83 °C" in body["text"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "answered 500 Internal Server Error"),
        (302, "answered 302 Found"),
        ((404, {}, b"no_service\n"), "answered 404 Not Found: no_service"),
        ((403, {}, b"<html>go away"), "answered 403 Forbidden"),
        ((400, {}, b"bad path /hooks/hush-hush"), "answered 400 Bad Request"),
        ((400, {}, b"x" * 100_000), "answered 400 Bad Request"),
    ],
)
def test_a_webhook_that_refuses(answer: int | tuple[int, dict[str, str], bytes], words: str) -> None:
    with Webhook([answer]) as webhook, pytest.raises(ChannelError) as caught:
        deliver(Channel("x", "slack", url=webhook.url), ONE)
    assert str(caught.value).partition(" ")[2] == words
    assert "hush" not in str(caught.value)


def test_a_webhook_says_when_to_come_again() -> None:
    with Webhook([(429, {"Retry-After": "17"}, b""), (429, {"Retry-After": "soon"}, b"")]) as webhook:
        for seconds in (17.0, 0.0):
            with pytest.raises(ChannelError) as caught:
                deliver(Channel("x", "slack", url=webhook.url), ONE)
            assert caught.value.retry_after == seconds


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_a_webhook_that_never_ends_is_left(answer: str) -> None:
    with Webhook([answer]) as webhook:
        began = time.monotonic()
        with pytest.raises(ChannelError, match=r"did not answer within 0\.5 s"):
            deliver(Channel("x", "slack", url=webhook.url), ONE, timeout=0.5)
    assert time.monotonic() - began < 5


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ChannelError, match=f"localhost:{port}: Connection refused"):
        deliver(Channel("x", "webhook", url=f"http://localhost:{port}/hush"), ONE)
    with pytest.raises(ChannelError, match=r"mail: no address is known for this name|mail: .*resolution"):
        deliver(replace(MAIL, server="mail"), ONE)


def test_what_speaks_no_http() -> None:
    with Mailbox() as mailbox, pytest.raises(ChannelError):
        deliver(Channel("x", "webhook", url=f"http://127.0.0.1:{mailbox.port}/"), ONE, timeout=5)


def test_a_webhook_over_tls_needs_a_good_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, context = certificate(tmp_path)
    with Webhook(tls=context) as webhook:
        with pytest.raises(ChannelError, match="its certificate is not valid: self-signed certificate"):
            deliver(Channel("x", "webhook", url=webhook.url), ONE)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        deliver(Channel("x", "webhook", url=webhook.url), ONE)
        assert len(webhook.taken) == 1


def test_a_mail_server_takes_a_message() -> None:
    with Mailbox() as mailbox:
        deliver(replace(MAIL, server="localhost", port=mailbox.port), ONE)
    (envelope,) = mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("piman@example.org", ["a@example.org", "b@example.org"])
    (got,) = mailbox.mails
    assert isinstance(got, Mail)
    assert got["Subject"] == "[piman] rack: warning: pi3: it is at 83 °C"
    assert "83 °C" in got.get_content()  # type: ignore[attr-defined]


def test_a_mail_server_with_tls_and_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, context = certificate(tmp_path)
    with Mailbox(context, "hushpass") as mailbox:
        channel = replace(
            MAIL, server="localhost", port=mailbox.port, security="starttls", user="me", secret="hushpass"
        )
        with pytest.raises(ChannelError, match="its certificate is not valid"):
            deliver(channel, ONE)
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        deliver(channel, ONE)
        assert len(mailbox.mails) == 1
        with pytest.raises(ChannelError, match="it does not take the user and password") as caught:
            deliver(replace(channel, secret="hushwrong"), ONE)
        assert "hush" not in str(caught.value)


def test_a_mail_server_that_refuses() -> None:
    with Mailbox() as mailbox:
        channel = replace(MAIL, server="127.0.0.1", port=mailbox.port)
        mailbox.refuse = ["451 later", "554 never"]
        for code in ("451", "554"):
            with pytest.raises(ChannelError, match=f"127.0.0.1: it answered {code}"):
                deliver(channel, ONE)
        with pytest.raises(ChannelError, match="it lacks what is asked for"):
            deliver(replace(channel, security="starttls"), ONE)
        with pytest.raises(ChannelError, match=r"it refuses mail for nobody@example\.org \(550\)"):
            deliver(replace(channel, to=("nobody@example.org",)), ONE)


def test_what_speaks_no_smtp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the connection and says nothing
        channel = replace(MAIL, server="127.0.0.1", port=listener.getsockname()[1])
        with pytest.raises(ChannelError, match=r"127.0.0.1 did not answer within 0\.3 s"):
            deliver(channel, ONE, timeout=0.3)
    with Webhook() as webhook:
        channel = replace(MAIL, server="127.0.0.1", port=int(webhook.url.split(":")[2].split("/")[0]))
        with pytest.raises(ChannelError):
            deliver(channel, ONE, timeout=1)


def script(tmp_path: Path, text: str) -> Channel:
    path = tmp_path / "alert.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Channel("script", "script", path=path)


def test_a_script_has_the_json_at_its_input_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMAN_WEB_PASSWORD", "hush")
    channel = script(
        tmp_path, f'cat > {tmp_path}/in; env > {tmp_path}/env; echo "$PIMAN_ALERT_TITLE" > {tmp_path}/title'
    )
    deliver(channel, ONE)
    assert json.loads((tmp_path / "in").read_text()) == json.loads(webhook_body(ONE))
    assert (tmp_path / "title").read_text() == "rack: warning: pi3: it is at 83 °C\n"
    assert "hush" not in (tmp_path / "env").read_text()
    assert "PIMAN_ALERT_SEVERITY=warning" in (tmp_path / "env").read_text()
    deliver(script(tmp_path, "exit 0"), Message("test", "rack", 0.0, ()))  # it need not read


def test_a_script_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match=r"alert\.sh ended with 3: no paper"):
        deliver(script(tmp_path, "cat > /dev/null; echo oops >&2; echo no paper >&2; exit 3"), ONE)
    with pytest.raises(ChannelError, match=r"^alert.sh ended with 4$"):
        deliver(script(tmp_path, "exit 4"), ONE)
    with pytest.raises(ChannelError, match=r"alert.sh did not end within 0\.3 s"):
        deliver(script(tmp_path, "sleep 60"), ONE, timeout=0.3)
    with pytest.raises(ChannelError, match="away: No such file or directory"):
        deliver(Channel("script", "script", path=tmp_path / "away"), ONE)


def test_what_a_script_leaves_running_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    deliver(script(tmp_path, f"(sleep 1; touch {tmp_path}/late) >/dev/null 2>&1 & exit 0"), ONE)
    assert time.monotonic() - began < 5
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()
