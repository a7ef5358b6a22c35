"""The rack for Grafana without Prometheus: the questions of its JSON data source, answered from our own history. Pure.

The API is the one of the plugins "SimpleJson" and "JSON": /search, /query, /annotations, /tag-keys, /tag-values, and
the latter's /metrics and /variable. A target is a metric (`temperature`: a line for each Pi), a metric of some Pis
(`pi3.temperature`, `rack-a-*.temperature`), or a table: `pis`, `alerts`. Questions are other people's text: what is no
question is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from monitoring.exporters import PI_LABELS, Scene, labels_of_pis
from monitoring.metrics import METRICS, Sample
from monitoring.store import Event
from utility.rules import matches

Json = dict[str, object]
Samples = Callable[[str, str, float, float, int], Sequence[Sample]]  # mac, metric, since, until, points

TABLES = ("pis", "alerts")
MAX_LINES = 100  # in one answer: each is a look into the history
MAX_TARGETS = 50
MAX_POINTS = 2000
MAX_ANNOTATIONS = 1000
_LONGEST = 200 * 366 * 86400.0


class QuestionError(ValueError):
    """The question cannot be answered; `str()` says what was expected."""


@dataclass(frozen=True, slots=True)
class Range:
    """From when until when, in Unix time."""

    since: float
    until: float


# ------------------------------------------------------------------------------------------------- what was asked


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise QuestionError(f"expected an object as {what}")
    return value


def _rows(value: object, what: str, most: int) -> list[Mapping[str, object]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise QuestionError(f"expected a list of at most {most} as {what}")
    return [_mapping(each, what) for each in value]


def _text(asked: Mapping[str, object], key: str) -> str:
    value = asked.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 200:
        raise QuestionError(f"expected a text of at most 200 characters as {key}")
    return value


def _moment(value: object) -> float:
    """`2026-11-25T03:00:00.000Z`, or milliseconds -> Unix time."""
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            when = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            when = float(value) / 1000
        else:
            raise QuestionError("expected a time like 2026-11-25T03:00:00Z in range")
    except (ValueError, OverflowError):
        raise QuestionError("expected a time like 2026-11-25T03:00:00Z in range") from None
    if not abs(when) < _LONGEST:
        raise QuestionError("a time in range is not of this age")
    return when


def range_of(asked: Mapping[str, object]) -> Range:
    """The time that a question is about; QuestionError."""
    given = _mapping(asked.get("range"), "range")
    found = Range(_moment(given.get("from")), _moment(given.get("to")))
    if found.until < found.since:
        raise QuestionError("range ends before it begins")
    return found


def _points(asked: Mapping[str, object]) -> int:
    value = asked.get("maxDataPoints", 500)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value < 1e9:
        raise QuestionError("expected a number from 1 on as maxDataPoints")
    return min(int(value), MAX_POINTS)


# -------------------------------------------------------------------------------------------------- what there is


def search(asked: object, scene: Scene) -> list[str]:
    """The targets there are, with the text in them that was typed; for a variable: `pis()`, `metrics()`."""
    text = _text(_mapping(asked, "the question"), "target") if asked is not None else ""
    pis = sorted(labels["name"] for labels in labels_of_pis(scene).values())
    if text in ("pis()", "metrics()"):
        return pis if text == "pis()" else list(METRICS)
    targets = [*METRICS, *TABLES, *(f"{pi}.{metric}" for pi in pis for metric in METRICS)]
    return [each for each in targets if text.lower() in each.lower()]


def tag_keys() -> list[Json]:
    """By what an ad hoc filter may choose Pis."""
    return [{"type": "string", "text": label} for label in PI_LABELS]


def tag_values(asked: object, scene: Scene) -> list[Json]:
    """The values of one of them."""
    key = _text(_mapping(asked, "the question"), "key")
    if key not in PI_LABELS:
        raise QuestionError(f"expected one of {', '.join(PI_LABELS)} as key")
    return [{"text": value} for value in sorted({labels[key] for labels in labels_of_pis(scene).values()} - {""})]


# ------------------------------------------------------------------------------------------------------ answers


def query(asked: object, scene: Scene, samples: Samples) -> list[Json]:
    """The lines and tables of a panel; QuestionError."""
    question = _mapping(asked, "the question")
    span, points = range_of(question), _points(question)
    pis = _filtered(labels_of_pis(scene), question)
    answers: list[Json] = []
    lines: list[tuple[str, str, str]] = []  # title, MAC, metric
    for each in _rows(question.get("targets"), "targets", MAX_TARGETS):
        target = _text(each, "target")
        if not target or each.get("hide") is True:
            continue
        if target in TABLES:
            answers.append(_pi_table(scene, pis) if target == "pis" else _alert_table(scene))
        else:
            lines += _lines(target, pis)
    if len(lines) > MAX_LINES:
        raise QuestionError(
            f"these are {len(lines)} lines, more than the {MAX_LINES} of one panel; name some Pis, like lab-*.load1"
        )
    for title, mac, metric in lines:
        found = samples(mac, metric, span.since, span.until, points)
        answers.append({"target": title, "datapoints": [[each.mean, round(each.when * 1000)] for each in found]})
    return answers


def _filtered(pis: Mapping[str, Mapping[str, str]], question: Mapping[str, object]) -> dict[str, Mapping[str, str]]:
    """The Pis that all ad hoc filters let through."""
    left = dict(pis)
    for each in _rows(question.get("adhocFilters"), "adhocFilters", MAX_TARGETS):
        key, operator, value = (_text(each, name) for name in ("key", "operator", "value"))
        if key not in PI_LABELS or operator not in ("=", "!="):
            raise QuestionError(f"a filter is one of {', '.join(PI_LABELS)}, then = or !=, then a value")
        left = {mac: labels for mac, labels in left.items() if (labels[key] == value) is (operator == "=")}
    return left


def _lines(target: str, pis: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """What a target names. Names of Pis may have dots in them, metrics have none."""
    pattern, _, metric = target.rpartition(".")
    if metric not in METRICS:
        raise QuestionError(f"{target!r} is no target; expected a metric, like temperature, or pi3.temperature")
    wanted = pattern or "*"
    return [
        (labels["name"] if not pattern else f"{labels['name']}.{metric}", mac, metric)
        for mac, labels in pis.items()
        if matches(wanted, labels["name"]) or wanted in (mac, labels["address"])
    ]


def _table(columns: Sequence[tuple[str, str]], rows: list[list[object]]) -> Json:
    return {"type": "table", "columns": [{"text": text, "type": kind} for text, kind in columns], "rows": rows}


def _pi_table(scene: Scene, pis: Mapping[str, Mapping[str, str]]) -> Json:
    rows: list[list[object]] = []
    for mac, labels in pis.items():
        row, reading = scene.rows.get(mac), scene.readings.get(mac)
        values = reading.values if reading else {}
        words = reading.words if reading else {}
        heard = round(row.heard_at * 1000) if row and row.heard_at else None
        percent = round(100 * row.done / row.total, 1) if row and row.total else None
        stage = str(row.stage) if row and row.stage else ""
        told: list[object] = [stage, percent, heard, words.get("evidence", ""), words.get("image", "")]
        rows.append([*labels.values(), *told, *(values.get(metric) for metric in METRICS)])
    columns = [(label, "string") for label in PI_LABELS]
    columns += [("stage", "string"), ("percent", "number"), ("heard", "time"), ("evidence", "string")]
    return _table([*columns, ("image", "string"), *((metric, "number") for metric in METRICS)], rows)


def _alert_table(scene: Scene) -> Json:
    columns = (("since", "time"), ("severity", "string"), ("name", "string"), ("text", "string"), ("rule", "string"))
    rows: list[list[object]] = [
        [round(each.since * 1000), str(each.severity), each.name, each.text, each.rule, str(each.state)]
        for each in scene.alerts
        if not each.resolved_at
    ]
    return _table([*columns, ("state", "string")], rows)


def marks(asked: object, scene: Scene, events: Sequence[Event]) -> list[Json]:
    """What happened, as marks on a graph: of everybody, or of those whose name the annotation's query is a pattern of.

    events    the newest, the oldest of them first
    """
    question = _mapping(asked, "the question")
    span = range_of(question)
    given = _mapping(question.get("annotation", {}), "annotation")
    pattern = _text(given, "query") or "*"
    names = {mac: labels["name"] for mac, labels in labels_of_pis(scene).items()}
    found: list[Json] = []
    for event in events:
        name = names.get(event.mac, event.mac) or "manager"
        if span.since <= event.when <= span.until and matches(pattern, name):
            title = f"{name}: {event.text}"
            mark = {"time": round(event.when * 1000), "title": title, "text": title}
            found.append({"annotation": dict(given), **mark, "tags": [str(event.severity)]})
    return found[-MAX_ANNOTATIONS:]


def options(names: Sequence[str]) -> list[Json]:
    """Targets as the plugin "JSON" wants them, of its /metrics."""
    return [{"label": name, "value": name, "payloads": []} for name in names]


def variable(asked: object, scene: Scene) -> list[Json]:
    """The values of a variable, as the plugin "JSON" asks for them: {"payload": {"target": "pis()"}}."""
    payload = _mapping(asked, "the question").get("payload") or {}
    if isinstance(payload, str):
        payload = {"target": payload}
    names = search(payload, scene)
    return [{"__text": name, "__value": name} for name in names]
