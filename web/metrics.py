"""The routes for machines that watch: Prometheus' /metrics and /sd, and Grafana's JSON data source below /grafana/.

What they say is made in monitoring/. All of them only read: also those that take a question by POST.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from flask import Blueprint, Response, current_app, request

from monitoring import simple_json
from monitoring.alerts import Alert
from monitoring.directory import Roster
from monitoring.exporters import CONTENT_TYPE, Scene, facts_from_store, prometheus_text, service_discovery
from monitoring.operations import OperationError
from monitoring.simple_json import QuestionError
from monitoring.store import StoreError
from monitoring.watching import site_of
from web.auth import only_reads, refuse
from web.backend import Backend

blueprint = Blueprint("metrics", __name__)
MAX_EVENTS = 20_000  # that annotations are looked for in
View = TypeVar("View", bound=Callable[..., Response])


def scene() -> Scene:
    """All that is known now; OperationError where there is no config.yaml, StoreError."""
    backend: Backend = current_app.extensions["piman"]
    rack, now = backend.rack, time.time()
    rows, readings = rack.rows(), rack.readings()
    facts = rack.facts(now) if rack.facts else facts_from_store(rack.config, rows, readings, now)
    alerts: list[Alert] = rack.store.alerts()
    return Scene(
        config=rack.config,
        site=site_of(rack.config),
        facts=facts,
        hosts=Roster(rack.hosts, rows).all(),
        rows={row.mac: row for row in rows},
        readings=readings,
        ordered=frozenset(order.mac for order in rack.store.orders()),
        alerts=alerts,
        news=rack.news(),
        faces=rack.faces(),
        counters=rack.counters(),
        process=own_process(),
        version=rack.version,
    )


def own_process() -> dict[str, float]:
    """What the kernel says of this process, as far as there is a /proc."""
    found = {"process_cpu_seconds_total": time.process_time(), "process_threads": float(threading.active_count())}
    found["process_max_fds"] = float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
        found["process_virtual_memory_bytes"] = float(int(pages[0]) * resource.getpagesize())
        found["process_resident_memory_bytes"] = float(int(pages[1]) * resource.getpagesize())
        found["process_open_fds"] = float(len(os.listdir("/proc/self/fd")))  # noqa: PTH208  # no Path for each
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        found["process_start_time_seconds"] = round(booted + ticks / os.sysconf("SC_CLK_TCK"), 1)
    return found


def answering(view: View) -> View:
    """Let a view refuse with a sentence what cannot be answered."""

    def guarded(**parts: str) -> Response:
        try:
            return view(**parts)
        except QuestionError as error:
            return refuse(400, str(error))
        except (OperationError, StoreError) as error:
            return refuse(503, str(error))

    guarded.__name__, guarded.__doc__ = view.__name__, view.__doc__
    return guarded  # type: ignore[return-value]


def _json(value: object) -> Response:
    return Response(json.dumps(value, separators=(",", ":")), mimetype="application/json")


def _question() -> object:
    """The body as JSON, whatever its type is said to be; None where there is none."""
    data = request.get_data()
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise QuestionError("the body is no JSON") from None


@blueprint.get("/metrics")
@answering
def metrics() -> Response:
    """The rack, in Prometheus' text format."""
    return Response(prometheus_text(scene()), content_type=CONTENT_TYPE)


@blueprint.get("/sd")
@answering
def discovery() -> Response:
    """The agents on the Pis, for Prometheus' http_sd; with ?port=9100 another exporter on them."""
    now = scene()
    port = request.args.get("port", str(now.config.monitoring.port))
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        return refuse(400, "expected a port from 1 to 65535")
    return _json(service_discovery(now, int(port)))


@blueprint.get("/grafana/")
def grafana() -> Response:
    """How the data source is tested."""
    return _json({"name": "Piman"})


def _options(_asked: object, now: Scene) -> object:
    return simple_json.options(simple_json.search(None, now))


def _payloads(_asked: object, _now: Scene) -> object:
    return []


def _query(asked: object, now: Scene) -> object:
    backend: Backend = current_app.extensions["piman"]
    return simple_json.query(asked, now, backend.rack.store.samples)


def _annotations(asked: object, now: Scene) -> object:
    backend: Backend = current_app.extensions["piman"]
    return simple_json.marks(asked, now, backend.rack.store.latest_events(None, MAX_EVENTS))


def _tag_keys(_asked: object, _now: Scene) -> object:
    return simple_json.tag_keys()


QUESTIONS: Mapping[str, Callable[[object, Scene], object]] = {
    "search": simple_json.search,
    "query": _query,
    "annotations": _annotations,
    "tag-keys": _tag_keys,
    "tag-values": simple_json.tag_values,
    # Of the plugin "JSON", which came after "SimpleJson".
    "metrics": _options,
    "metric-payload-options": _payloads,
    "variable": simple_json.variable,
}


@blueprint.post("/grafana/<question>")
@only_reads
@answering
def ask(question: str) -> Response:
    """A question of Grafana's JSON data source."""
    handler = QUESTIONS.get(question)
    if handler is None:
        return refuse(404, f"expected one of {', '.join(QUESTIONS)}")
    return _json(handler(_question(), scene()))
