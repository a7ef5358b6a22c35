"""What an agent answers to GET /events: bytes -> values and words, or a reason. No socket, no clock, no state.

Whoever listens on that port of a Pi may send anything: a value that is no measurement is left out and told, an answer
that is none is refused with a sentence that an operator can act on. Nothing but AnswerError comes out of here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from monitoring.metrics import AGENT_METRICS, METRICS, Kind

MAX_ANSWER = 16_384  # bytes, head and all; ours has 900
MAX_WORD = 64
WORDS = ("image", "kernel", "agent")
# Each answer has a dozen of them: what is needed of a metric, at hand.
_TABLE = tuple((each.name, each.kind is Kind.FLAG, each.low, each.high, each.decimals) for each in AGENT_METRICS)
CLOCK_DUST = 0.005  # seconds between the answer's time and its being sent, on a loaded Pi

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?$")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?:\r\n|$)", re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class AnswerError(ValueError):
    """An answer that is refused; `str()` continues "its agent ..."."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent says. `time`: its Unix time, None: not told. `refused`: values that were no measurement."""

    values: dict[str, float]
    words: Mapping[str, str]
    time: float | None
    refused: tuple[str, ...]


def request(address: str) -> bytes:
    """The question to the agent of a Pi."""
    return f"GET /events HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n".encode()


def is_complete(data: bytes) -> bool:
    """Whether all that a Content-Length announces is there. Without one, the end of the connection is the end."""
    head, gap, body = data.partition(b"\r\n\r\n")
    length = _length(head) if gap else None
    return length is not None and len(body) >= length


def parse(data: bytes, mac: str) -> Answer:
    """The answer of the Pi with that MAC, whole; AnswerError."""
    if len(data) > MAX_ANSWER:
        raise AnswerError(f"sends more than {MAX_ANSWER} bytes")
    if not data:
        raise AnswerError("closes the connection without an answer")
    head, gap, body = data.partition(b"\r\n\r\n")
    status = _STATUS.match(head.partition(b"\r\n")[0])
    if not status or not gap:
        raise AnswerError("does not speak HTTP: another program listens on its port")
    _check_status(int(status[1]))
    length = _length(head)
    if length is not None and len(body) < length:
        raise AnswerError(f"ends after {len(body)} of {length} bytes")
    return _read(_object(body if length is None else body[:length]), mac)


def clock_offset(told: float | None, time: float | None, sent: float, received: float) -> float | None:
    """How much the Pi's clock is ahead of ours; None: nothing is known.

    told            what the Pi's own time client says, which is finer, but may be wrong, or of another server
    time            the Pi's clock at some moment between our sending the question and having the answer
    """
    if time is None:
        return told
    seen, doubt = time - (sent + received) / 2, abs(received - sent) / 2 + CLOCK_DUST
    return told if told is not None and abs(told - seen) <= doubt else seen


def _length(head: bytes) -> int | None:
    found = _LENGTH.search(head)
    return int(found[1]) if found else None


def _check_status(status: int) -> None:
    if 300 <= status < 400:
        raise AnswerError(f"redirects elsewhere (HTTP {status}), which is not followed")
    if status != 200:
        raise AnswerError(f"refuses with HTTP {status}")


def _object(body: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError):
        what = "HTML" if body.lstrip()[:1] == b"<" else "what is no JSON"
        raise AnswerError(f"answers {what}: another program listens on its port") from None
    if not isinstance(found, dict):
        raise AnswerError("answers JSON that is no object: another program listens on its port")
    return found


def _read(found: Mapping[str, object], mac: str) -> Answer:
    macs = [each.lower() for each in _list(found.get("mac")) if isinstance(each, str)]
    if macs and mac not in macs:
        other = next((each for each in macs if _MAC.fullmatch(each)), "another Pi")
        raise AnswerError(f"answers for {other}: two Pis have this address, or its network card was changed")
    values, refused = {}, []
    for name, is_flag, low, high, decimals in _TABLE:
        told = found.get(name)
        if told is None:  # the agent could not find it out
            continue
        value = _number(told, is_flag)
        if value is None or not low <= value <= high or (is_flag and value not in (0.0, 1.0)):
            refused.append(name)
        else:
            values[name] = round(value, decimals)
    if not values:
        raise AnswerError("answers JSON without any measurement: another program listens on its port")
    words = {name: _clean(word) for name in WORDS if isinstance(word := found.get(name), str)}
    time = _number(found.get("time"), False)
    if time is not None and not METRICS["clock_offset"].accepts(time):
        time = None
    return Answer(values, words, time, tuple(refused))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _number(value: object, is_flag: bool) -> float | None:
    if type(value) is float:
        return value
    if isinstance(value, bool):
        return float(value) if is_flag else None
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:
        return None


def _clean(text: str) -> str:
    """Fit for a table and a label: printable, and not too long."""
    if len(text) <= MAX_WORD and text.isprintable():
        return text
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_WORD])
