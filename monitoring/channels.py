"""How an alert reaches people: what a message says, when to send it, and the four ways to send it. No store, no thread.

`Message` and `next_try` are pure. `deliver` sends and blocks, for `timeout` seconds at most, however slowly the other
side answers; what it raises names the channel's host and never what is secret of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitoring.alerts import Alert, AlertSeverity
from utility.config import Channel
from utility.rules import duration_text

if TYPE_CHECKING:
    import smtplib
    from email.message import EmailMessage

TIMEOUT = 10.0
MAX_LINES = 40  # of a message
MAX_ANSWER = 4096  # bytes of an answer that are read

_MARKS: Mapping[AlertSeverity, str] = {
    AlertSeverity.CRITICAL: "\N{LARGE RED CIRCLE}",
    AlertSeverity.WARNING: "\N{LARGE ORANGE CIRCLE}",
    AlertSeverity.INFO: "\N{LARGE BLUE CIRCLE}",
}
_OVER = "\N{WHITE HEAVY CHECK MARK}"


class ChannelError(Exception):
    """A message was not taken; `retry_after`: seconds that the other side asks us to wait."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


# ---------------------------------------------------------------------------------------------------- what it says


@dataclass(frozen=True, slots=True)
class Told:
    """An alert as a message tells it: that it was raised, or that it is over."""

    alert: Alert
    over: bool

    @property
    def line(self) -> str:
        alert = self.alert
        if not self.over:
            return f"{alert.severity}: {alert.name}: {alert.text}"
        lasted = duration_text(max(0.0, alert.resolved_at - alert.since))
        why = f" ({alert.ended})" if alert.ended else ""
        return f"over: {alert.name}: {alert.text}; lasted {lasted}{why}"

    @property
    def mark(self) -> str:
        return _OVER if self.over else _MARKS[self.alert.severity]


@dataclass(frozen=True, slots=True)
class Message:
    """Several alerts in one message. `id` is the same when it is sent again; no `told`: it is a test."""

    id: str
    site: str
    when: float
    told: tuple[Told, ...]

    @property
    def raised(self) -> list[Told]:
        """What was raised, the gravest first."""
        return sorted((each for each in self.told if not each.over), key=lambda each: -each.alert.severity.rank)

    @property
    def over(self) -> list[Told]:
        return [each for each in self.told if each.over]

    @property
    def title(self) -> str:
        if not self.told:
            return f"{self.site}: a test of this channel"
        if len(self.told) == 1:
            return f"{self.site}: {self.told[0].line}"
        counts = [(len(self.raised), "alerts" if len(self.raised) > 1 else "alert"), (len(self.over), "over")]
        return f"{self.site}: " + ", ".join(f"{count} {word}" for count, word in counts if count)

    @property
    def lines(self) -> list[str]:
        """A line for each alert, marked."""
        if not self.told:
            return ["Piman was asked to test this channel. All is well if you read this."]
        lines = [f"{each.mark} {each.line}" for each in (*self.raised, *self.over)]
        more = len(lines) - MAX_LINES
        return lines if more <= 0 else [*lines[:MAX_LINES], f"... and {more} more; `piman alerts` lists them"]


def alert_json(alert: Alert) -> dict[str, object]:
    """An alert for scripts; the keys are a promise."""
    return {
        "id": alert.id,
        "rule": alert.rule,
        "subject": alert.subject,
        "name": alert.name,
        "severity": str(alert.severity),
        "state": str(alert.state),
        "text": alert.text,
        "value": alert.value,
        "since": alert.since,
        "opened_at": alert.opened_at,
        "resolved_at": alert.resolved_at or None,
        "ended": alert.ended,
        "acknowledged": alert.acknowledged,
        "suppressed": alert.suppressed,
        "silenced": alert.silenced,
    }


def slack_body(message: Message) -> bytes:
    """The form that Slack, Mattermost and Discord's /slack take."""
    text = "\n".join([f"*{message.title}*", *message.lines] if len(message.told) != 1 else message.lines)
    if len(message.told) == 1:
        text = f"{message.told[0].mark} {message.title}"
    return json.dumps({"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}).encode()


def webhook_body(message: Message) -> bytes:
    """The generic form."""
    alerts = [{"event": "over" if each.over else "raised", **alert_json(each.alert)} for each in message.told]
    return json.dumps(
        {
            "version": 1,
            "id": message.id,
            "site": message.site,
            "when": message.when,
            "title": message.title,
            "text": "\n".join(message.lines),
            "test": not message.told,
            "alerts": alerts,
        }
    ).encode()


def mail(channel: Channel, message: Message) -> EmailMessage:
    """The message as a mail; one that is sent again has the same Message-ID, so that mail programs show it once."""
    from email.message import EmailMessage  # noqa: PLC0415  # a tenth of a server's start, and few have such a channel
    from email.utils import formatdate  # noqa: PLC0415

    domain = channel.sender.rpartition("@")[2]
    result = EmailMessage()
    result["Subject"] = " ".join(f"[piman] {message.title}".split())[:200]
    result["From"] = channel.sender
    result["To"] = ", ".join(channel.to)
    result["Date"] = formatdate(message.when)
    result["Message-ID"] = f"<piman.{message.id}@{domain}>"
    result["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation notice is sent back
    result.set_content("\n".join(message.lines) + "\n")
    return result


# ------------------------------------------------------------------------------------------------------ when to send


@dataclass(frozen=True, slots=True)
class Pace:
    """How a channel is used, in seconds.

    group        what comes within so long of the first goes into one message
    interval     between two messages
    first, most  the pause after a failure, which doubles with each, and the longest
    tell_after   failures in a row, until that is an event
    """

    group: float = 5.0
    interval: float = 30.0
    first: float = 2.0
    most: float = 300.0
    tell_after: int = 5


@dataclass(frozen=True, slots=True)
class Tries:
    """What became of a channel's last messages. Times are of the caller's clock."""

    sent_at: float = float("-inf")
    failed_at: float = float("-inf")
    failures: int = 0  # in a row
    retry_after: float = 0.0

    def next_try(self, queued_at: float, pace: Pace) -> float:
        """When to send what has waited since `queued_at`."""
        due = max(queued_at + pace.group, self.sent_at + pace.interval)
        if not self.failures:
            return due
        pause = min(pace.first * 2.0 ** min(self.failures - 1, 16), pace.most)
        return max(due, self.failed_at + max(pause, min(self.retry_after, pace.most)))


# -------------------------------------------------------------------------------------------------------- sending


def deliver(channel: Channel, message: Message, timeout: float = TIMEOUT) -> None:
    """Send a message; ChannelError if it was not taken."""
    try:
        _WAYS[channel.kind](channel, message, timeout)
    except ChannelError:
        raise
    except TimeoutError:
        raise ChannelError(f"{_place(channel)} did not answer within {timeout:g} s") from None
    except socket.gaierror:
        raise ChannelError(f"{_place(channel)}: no address is known for this name") from None
    except OSError as error:
        invalid = getattr(error, "verify_message", "")  # of ssl.SSLCertVerificationError
        reason = f"its certificate is not valid: {invalid}" if invalid else error.strerror or type(error).__name__
        raise ChannelError(f"{_place(channel)}: {reason}") from None


def _place(channel: Channel) -> str:
    """A channel's other side, without what is secret."""
    if channel.kind == "script":
        return channel.path.name
    return channel.server if channel.kind == "email" else urllib.parse.urlsplit(channel.url).netloc.rpartition("@")[2]


@contextlib.contextmanager
def _deadline(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Call `end`, which closes the connection, when the time is over; what fails then is a TimeoutError.

    A socket's own timeout is for one receive, and who sends a byte a second never runs into it.
    """
    over = threading.Event()

    def expire() -> None:
        over.set()
        end()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    if over.is_set():  # also where half an answer looked like a whole one
        raise TimeoutError


def _shut(connection: socket.socket | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _post(channel: Channel, body: bytes, timeout: float) -> None:
    import http.client  # noqa: PLC0415

    parts = urllib.parse.urlsplit(channel.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout + 1)  # later than the deadline
    headers = {"Content-Type": "application/json", "User-Agent": "piman", "Connection": "close"}
    if channel.secret:
        headers["Authorization"] = f"Bearer {channel.secret}"
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        with contextlib.closing(connection), _deadline(timeout, lambda: _shut(connection.sock)):
            connection.request("POST", path, body, headers)
            with connection.getresponse() as answer:
                text = answer.read(MAX_ANSWER).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise ChannelError(f"{_place(channel)}: does not speak HTTP ({type(error).__name__})") from None
    if not 200 <= answer.status < 300:
        after = answer.getheader("Retry-After") or ""
        said = _harmless(text, channel, parts)
        words = f"{_place(channel)} answered {answer.status} {answer.reason}{f': {said}' if said else ''}"
        raise ChannelError(words, float(after) if after.isdecimal() and len(after) < 8 else 0.0)


def _harmless(text: str, channel: Channel, parts: urllib.parse.SplitResult) -> str:
    """The first line of what the other side said, if it is short and repeats nothing that is secret."""
    line = text.strip().partition("\n")[0].strip()
    secrets = [each for each in (channel.secret, *parts.path.split("/"), parts.query) if len(each) > 5]
    fits = 0 < len(line) <= 80 and line.isprintable() and not line.startswith("<")
    return line if fits and not any(each in line for each in secrets) else ""


def _send_slack(channel: Channel, message: Message, timeout: float) -> None:
    _post(channel, slack_body(message), timeout)


def _send_webhook(channel: Channel, message: Message, timeout: float) -> None:
    _post(channel, webhook_body(message), timeout)


def _send_mail(channel: Channel, message: Message, timeout: float) -> None:
    import smtplib  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    kind = smtplib.SMTP_SSL if channel.security == "tls" else smtplib.SMTP
    server = kind(timeout=timeout + 1)  # later than the deadline
    server._host = channel.server  # type: ignore[attr-defined]  # connect() forgets it, and TLS checks the name
    try:
        with _deadline(timeout, lambda: _shut(server.sock)):
            code, _text = server.connect(channel.server, channel.port)
            if code != 220:
                raise ChannelError(f"{channel.server} answered {code}")
            if channel.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if channel.user:
                server.login(channel.user, channel.secret)
            server.send_message(mail(channel, message))
            server.quit()
    except smtplib.SMTPException as error:
        raise ChannelError(f"{channel.server}: {_smtp_words(error)}") from None
    finally:
        server.close()


def _smtp_words(error: smtplib.SMTPException) -> str:
    """What the server said, which is never what we said."""
    import smtplib  # noqa: PLC0415

    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"it does not take the user and password ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refused = ", ".join(f"{name} ({code})" for name, (code, _text) in error.recipients.items())
        return f"it refuses mail for {refused}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {error.smtp_code}"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return f"it lacks what is asked for: {error}"
    return "it closed the connection"


def _send_script(channel: Channel, message: Message, timeout: float) -> None:
    """Run the script with the JSON at its input, and the gist in its environment."""
    worst = message.raised[0].alert.severity if message.raised else AlertSeverity.INFO
    gist = {"PIMAN_ALERT_TITLE": message.title, "PIMAN_ALERT_SEVERITY": str(worst)}
    process = subprocess.Popen(
        [channel.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={name: text for name, text in os.environ.items() if not name.startswith("PIMAN_")} | gist,
        start_new_session=True,
    )
    try:
        _out, said = process.communicate(webhook_body(message), timeout=timeout)
    except subprocess.TimeoutExpired:
        raise ChannelError(f"{channel.path.name} did not end within {timeout:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it left running, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
    if process.returncode:
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2][:80]
        raise ChannelError(f"{channel.path.name} ended with {process.returncode}{f': {last}' if last else ''}")


_WAYS: Mapping[str, Callable[[Channel, Message, float], None]] = {
    "slack": _send_slack,
    "webhook": _send_webhook,
    "email": _send_mail,
    "script": _send_script,
}


def wants(channel: Channel, alert: Alert, over: bool) -> bool:
    """Whether a channel is to be told of this."""
    return alert.severity.rank >= channel.severity.rank and (channel.resolved or not over)


def compose(site: str, told: Sequence[tuple[int, Told]], when: float) -> Message:
    """One message of what waits: (number of the notice, what it tells)."""
    first, last = told[0][0], told[-1][0]
    return Message(f"{first}-{last}", site, when, tuple(each for _number, each in told))
