"""Grafana's JSON data source: what may be asked, what is answered, and the sentences for what is no question."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from monitoring import simple_json
from monitoring.exporters import PI_LABELS, Scene
from monitoring.metrics import METRICS, Sample
from monitoring.simple_json import MAX_LINES, QuestionError
from monitoring.store import Event
from tests.scene import MACS, NOW, scene
from utility.hosts import Host
from utility.service import Severity

RANGE = {"from": "2026-09-21T12:00:00.000Z", "to": 1_800_000_000_000}


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("rack"))


def samples(mac: str, metric: str, since: float, until: float, points: int) -> list[Sample]:
    assert since < until
    return [Sample(NOW + 0.5, float(mac[-1]), 0.0, points)] if metric == "temperature" else []


def ask(rack: Scene, *targets: object, **more: object) -> list[dict[str, object]]:
    return simple_json.query({"range": RANGE, "targets": [*targets], **more}, rack, samples)


def test_a_line_for_each_pi(rack: Scene) -> None:
    found = ask(rack, {"target": "temperature", "refId": "A"})
    assert found == [
        {"target": f"pi1{number}", "datapoints": [[float(number), 1_790_000_000_500]]} for number in range(1, 5)
    ]


@pytest.mark.parametrize(
    ("target", "titles"),
    [
        ("pi12.temperature", ["pi12.temperature"]),
        ("PI1[12].load1", ["pi11.load1", "pi12.load1"]),
        (f"{MACS[2]}.up", ["pi13.up"]),
        ("172.30.4.14.up", ["pi14.up"]),
        ("other*.up", []),
        ("", []),
    ],
)
def test_lines_of_some(rack: Scene, target: str, titles: list[str]) -> None:
    assert [each["target"] for each in ask(rack, {"target": target})] == titles


def test_what_is_hidden_is_not_asked(rack: Scene) -> None:
    assert ask(rack, {"target": "up", "hide": True}, {}) == []


@pytest.mark.parametrize(("operator", "names"), [("=", ["pi11", "pi12"]), ("!=", ["pi13", "pi14"])])
def test_filters(rack: Scene, operator: str, names: list[str]) -> None:
    filters = [{"key": "switch", "operator": operator, "value": "upper"}]
    assert [each["target"] for each in ask(rack, {"target": "up"}, adhocFilters=filters)] == names


def test_tables(rack: Scene) -> None:
    pis, alerts = ask(rack, {"target": "pis", "type": "table"}, {"target": "alerts"})
    (columns, rows), (heads, lines) = ((each["columns"], each["rows"]) for each in (pis, alerts))
    assert isinstance(columns, list)
    assert isinstance(rows, list)
    assert [each["text"] for each in columns] == [
        *PI_LABELS, "stage", "percent", "heard", "evidence", "image", *METRICS,
    ]  # fmt: skip
    assert all(len(row) == len(columns) for row in rows)
    assert rows[1][:9] == ["pi12", MACS[1], "172.30.4.12", "upper", "2", "", "image", 25.0, 1_789_999_999_000]
    assert rows[2][6:9] == ["", None, None]
    assert lines == [[1_789_999_910_000, "warning", "pi11", "it is at 81 °C", "temperature", "firing"]]
    assert isinstance(heads, list)
    assert len(heads) == 6


def test_search(rack: Scene) -> None:
    everything = simple_json.search(None, rack)
    assert everything[: len(METRICS) + 2] == [*METRICS, "pis", "alerts"]
    assert len(everything) == len(METRICS) * 5 + 2
    assert simple_json.search({"target": "PI12.temp"}, rack) == ["pi12.temperature"]
    assert simple_json.search({"target": "pis()"}, rack) == ["pi11", "pi12", "pi13", "pi14"]
    assert simple_json.search({"target": "metrics()"}, rack) == list(METRICS)
    assert simple_json.search({}, rack) == everything
    assert simple_json.options(["up"]) == [{"label": "up", "value": "up", "payloads": []}]


@pytest.mark.parametrize("payload", [{"target": "pis()"}, "pis()"])
def test_variables(rack: Scene, payload: object) -> None:
    assert simple_json.variable({"payload": payload}, rack)[0] == {"__text": "pi11", "__value": "pi11"}
    assert len(simple_json.variable({}, rack)) > 4


def test_tags(rack: Scene) -> None:
    assert [each["text"] for each in simple_json.tag_keys()] == list(PI_LABELS)
    assert simple_json.tag_values({"key": "port"}, rack) == [{"text": "1"}, {"text": "2"}]


EVENTS = [
    Event(1, NOW, MACS[0], Severity.INFO, "up"),
    Event(2, NOW + 1, "", Severity.WARNING, "another DHCP server"),
    Event(3, NOW - 1e7, MACS[0], Severity.INFO, "long ago"),
    Event(4, NOW + 2, "dc:a6:32:00:00:01", Severity.ERROR, "a stranger"),
]


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        (None, ["pi11: up", "manager: another DHCP server", "dc:a6:32:00:00:01: a stranger"]),
        ("pi*", ["pi11: up"]),
        ("manager", ["manager: another DHCP server"]),
    ],
)
def test_marks(rack: Scene, text: str | None, titles: list[str]) -> None:
    asked = {"name": "events", "query": text}
    found = simple_json.marks({"range": RANGE, "annotation": asked}, rack, EVENTS)
    assert [each["title"] for each in found] == titles
    assert found[0]["annotation"] == asked
    assert found[0]["tags"] in (["info"], ["warning"])
    assert len(simple_json.marks({"range": RANGE}, rack, EVENTS)) == 3


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        (None, "expected an object as the question"),
        ({}, "expected an object as range"),
        ({"range": {}}, "expected a time like"),
        ({"range": {"from": "now", "to": "now"}}, "expected a time like"),
        ({"range": {"from": True, "to": 1}}, "expected a time like"),
        ({"range": {"from": 0, "to": 10**30}}, "is not of this age"),
        ({"range": {"from": 0, "to": float("nan")}}, "is not of this age"),
        ({"range": {"from": "9999-12-31T23:59:59-23:59", "to": 1}}, "is not of this age"),
        ({"range": {"from": 5, "to": 1}}, "ends before it begins"),
        ({"range": RANGE, "maxDataPoints": 0}, "expected a number from 1 on"),
        ({"range": RANGE, "maxDataPoints": "many"}, "expected a number from 1 on"),
        ({"range": RANGE, "targets": {}}, "expected a list of at most 50 as targets"),
        ({"range": RANGE, "targets": ["up"]}, "expected an object as targets"),
        ({"range": RANGE, "targets": [{"target": 5}]}, "expected a text of at most 200 characters as target"),
        ({"range": RANGE, "targets": [{"target": "x" * 201}]}, "expected a text of at most 200"),
        ({"range": RANGE, "targets": [{"target": "heat"}]}, "'heat' is no target; expected a metric, like"),
        ({"range": RANGE, "adhocFilters": [{"key": "colour", "operator": "=", "value": "red"}]}, "a filter is one of"),
        ({"range": RANGE, "adhocFilters": [{"key": "name", "operator": "=~", "value": "(a+)+"}]}, "then = or !="),
    ],
)
def test_what_is_no_question(rack: Scene, question: object, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        simple_json.query(question, rack, samples)


def test_too_many_lines_are_refused_and_points_are_bounded(rack: Scene) -> None:
    many = tuple(Host(f"b8:27:eb:00:{n >> 8:02x}:{n & 255:02x}", rack.hosts[0].address) for n in range(MAX_LINES + 1))
    with pytest.raises(QuestionError, match="101 lines, more than the 100"):
        ask(replace(rack, hosts=many), {"target": "up"})
    assert ask(rack, {"target": "temperature"}, maxDataPoints=10**6)[0]["datapoints"]
    with pytest.raises(QuestionError, match="as key"):
        simple_json.tag_values({"key": "colour"}, rack)


JSON = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=9) | some.just(RANGE),
    lambda part: (
        some.lists(part, max_size=3)
        | some.dictionaries(
            some.sampled_from(
                ["range", "from", "to", "targets", "target", "adhocFilters", "annotation", "key", "payload"]
            ),
            part,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(question=JSON)
def test_anything_is_answered_or_refused_with_a_sentence(rack: Scene, question: object) -> None:
    def of(mac: str, metric: str, since: float, until: float, points: int) -> list[Sample]:
        return []

    for work in (
        lambda: simple_json.query(question, rack, of),
        lambda: simple_json.search(question, rack),
        lambda: simple_json.tag_values(question, rack),
        lambda: simple_json.variable(question, rack),
        lambda: simple_json.marks(question, rack, EVENTS),
    ):
        with contextlib.suppress(QuestionError):
            work()
