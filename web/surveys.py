"""The API's part for what is plugged where, and for images that are imported: handlers and their routes.

What cuts power or takes minutes is a job; its results say what was found at each port.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import cast

from monitoring.operations import choose_image, find_switch, known_switches
from monitoring.power import InterruptionError, Waiting
from monitoring.surveys import (
    guard_of,
    learn_interfaces,
    look_around,
    map_switch,
    opened,
    place_name,
    proposal_json,
    proposals_of,
    record_switch,
    unknown_interfaces,
    worked_at,
)
from utility.config import Switch, with_calibrations
from utility.images import Additions, agent_files, check_public_key, folder_of, import_image
from utility.switches import PoeSwitch
from web.jobs import Result, Tell
from web.routes import ApiError, Call, Route, body_of, told
from web.schemas import JOB, Schema, answer, flag, many, maybe, text, thing, whole
from web.views import Json

PATIENCE = 60.0  # seconds for each Pi to come back
PROGRESS_INTERVAL = 5.0  # seconds between two steps of an import


def switch_of(call: Call) -> Switch:
    """The switch of the path, with what was learnt of it since the start; 404."""
    config = with_calibrations(call.backend.rack.config, call.backend.rack.store.calibrations())
    found = find_switch(config, call.path["index"])
    if found is None:
        raise ApiError(404, f"there is no switch {call.path['index']!r}; {known_switches(config)}")
    return found


def ports_of(call: Call) -> list[int]:
    """The ports of the body, each once. 409 unless the caller said how many they are: their power will be cut."""
    numbers = list(dict.fromkeys(int(each) for each in cast("Sequence[int]", body_of(call)["ports"])))
    if body_of(call)["confirm"] != len(numbers):
        raise ApiError(
            409, f'this cuts the power of {len(numbers)} ports; if you mean it, send "confirm": {len(numbers)}'
        )
    return numbers


# ------------------------------------------------------------------------------------------------- what is where


def map_ports(call: Call) -> Json:
    switch, numbers, write = switch_of(call), ports_of(call), bool(body_of(call).get("write", False))
    rack, waiting = call.backend.rack, Waiting(call.backend.acts.closing)

    def work(tell: Tell) -> Sequence[Result]:
        def tell_port(port: int, what: str) -> None:
            tell(place_name(switch, port), what)

        with _held(call, switch, tell, waiting) as poe:
            findings, spots = map_switch(
                rack.store,
                poe,
                numbers,
                hears=rack.server_runs(),
                guard=guard_of(rack.hosts),
                patience=PATIENCE,
                tell=tell_port,
                wait=waiting,
            )
        lines = {each.mac: each for each in proposals_of(rack.config, rack.hosts, spots, write)}
        results = []
        for each in findings:
            proposal = lines.get(each.verdict.mac)
            what = f"{each.verdict.mac} {each.verdict.text}".strip()
            if proposal is not None:
                state = "known" if proposal.is_known else "written" if write and proposal.address else "new"
                what += f"; hosts.csv: {proposal.line} ({state})"
            results.append(Result(place_name(switch, each.port.number), bool(each.verdict.mac), what))
        return results

    labels = [place_name(switch, port) for port in numbers]
    return call.backend.acts.jobs.start("map", call.caller.who, labels, work)


def discover(call: Call) -> Json:
    rack, write = call.backend.rack, bool(body_of(call).get("write", False))
    if not rack.config.switches:
        raise ApiError(409, "config.yaml has no switches")
    seen = look_around(rack.store, rack.hosts, rack.config.switches)
    proposals = proposals_of(rack.config, rack.hosts, seen.spots, write)
    if write:
        new = [each.mac for each in proposals if not each.is_known]
        call.backend.audit(call.caller.who, "discover", ", ".join(new), "written into hosts.csv" if new else "none new")
    return {
        "found": [proposal_json(each, write) for each in proposals],
        "unsure": list(seen.unsure),
        "failed": [str(each) for each in seen.failed],
    }


def calibrate(call: Call) -> Json:
    switch, numbers = switch_of(call), ports_of(call)
    rack, waiting = call.backend.rack, Waiting(call.backend.acts.closing)

    def work(tell: Tell) -> Sequence[Result]:
        last: dict[int, str] = {}

        def tell_port(port: int, what: str) -> None:
            last[port] = what
            tell(place_name(switch, port), what)

        with _held(call, switch, tell, waiting) as poe:
            found = learn_interfaces(
                rack.store, poe, numbers, guard=guard_of(rack.hosts), patience=PATIENCE, tell=tell_port, wait=waiting
            )
        return [Result(place_name(switch, each), each in found, last.get(each, "")) for each in numbers]

    labels = [place_name(switch, port) for port in numbers]
    return call.backend.acts.jobs.start("calibrate", call.caller.who, labels, work)


def uncalibrated(call: Call) -> Json:
    with opened(switch_of(call)) as poe:
        return {"ports": unknown_interfaces(poe)}


def forget_calibration(call: Call) -> Json:
    switch = switch_of(call)
    call.backend.rack.store.forget_calibrations(str(switch.address))
    call.backend.audit(call.caller.who, "forget calibration", place_name(switch), "done")
    return {"forgotten": True}


def record(call: Call) -> Json:
    return {"text": record_switch(switch_of(call), call.query.get("anonymise") == "true")}


def _held(call: Call, switch: Switch, tell: Tell, wait: Waiting) -> AbstractContextManager[PoeSwitch]:
    """The switch, to work at; what is told of it are steps of the job."""

    def waits() -> None:
        tell(place_name(switch), "waits: somebody else is switching ports there")

    return worked_at(call.backend.rack.store, switch, waits, lambda text: tell(place_name(switch), text), wait)


# ---------------------------------------------------------------------------------------------------------- images


def sources(call: Call) -> list[Json]:
    folder = folder_of(call.backend.rack.config.image)
    found = (path for path in sorted(folder.glob("*")) if not path.name.endswith(".tgz") and path.name[0] != ".")
    return [{"file": path.name, "size": path.stat().st_size} for path in found if path.is_file()]


def import_source(call: Call) -> Json:
    body, config, who = body_of(call), call.backend.rack.config, call.caller.who
    name, use, closing = str(body.get("name", "")), bool(body.get("use", False)), call.backend.acts.closing
    source = folder_of(config.image) / str(body["file"])
    if not source.is_file():
        raise ApiError(404, f"there is no {source.name} in {source.parent}: put it there first")
    key = check_public_key(str(body["ssh_key"])) if body.get("ssh_key") else ""
    additions = Additions(key, agent_files() if body.get("agent", True) else None)

    def work(tell: Tell) -> Sequence[Result]:
        due = 0.0

        def progress(what: str, done: int) -> None:
            nonlocal due
            if closing.is_set():
                raise InterruptionError("interrupted; nothing was made")
            if time.monotonic() >= due:
                due = time.monotonic() + PROGRESS_INTERVAL
                tell(source.name, f"{what}: {done / 1e6:.0f} MB")

        made = import_image(source, config.image, name, additions, progress)
        if use:
            choose_image(config, made.name, who)
        return [Result(source.name, True, f"{made.name}: {made.size / 1e6:.1f} MB" + (", in use" if use else ""))]

    return call.backend.acts.jobs.start("import image", who, [source.name], work)


# ----------------------------------------------------------------------------------------------------------- the table

_PORTS = many(whole(minimum=1, maximum=1024), minItems=1, maxItems=1024)
_SURE = whole("how many ports these are, as a check", minimum=0, maximum=100000)
_FOUND = answer(
    {
        "switch": text("its address"),
        "switch_number": whole("in config.yaml"),
        "port": whole(),
        "label": text(),
        "mac": text(),
        "address": maybe(text("null: none is free")),
        "hostname": maybe(text()),
        "known": flag("hosts.csv has it"),
        "written": flag("into hosts.csv, now"),
        "note": maybe(text("what somebody should look at", 2000)),
    }
)
_WRITE = flag("also write the new ones into hosts.csv")
_FILE_NAME = text("its name in the folder `images`", 200, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$")
_IMPORT: Schema = thing(
    {"file": _FILE_NAME},
    {
        "name": text("of the image; else it is made of the file's", 60),
        "ssh_key": text("a public key that may log in as root; for card images", 2000),
        "agent": flag("put the node agent into a card image; else true"),
        "use": flag("new installs get it at once"),
    },
)

SURVEY_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/switches/{index}/map", "map", "Power-cycle ports one by one, and see which Pi comes back on each.",
        told(map_ports), {202: JOB}, "operate", thing({"ports": _PORTS, "confirm": _SURE}, {"write": _WRITE}),
        tag="orders",
    ),
    Route(
        "POST", "/discover", "discover", "Which Pi is on which port of all switches, and the lines for hosts.csv.",
        told(discover),
        {200: answer({"found": many(_FOUND), "unsure": many(text(most=2000)), "failed": many(text(most=2000))})},
        "operate", thing({}, {"write": _WRITE}),
    ),
    Route(
        "GET", "/switches/{index}/calibration", "uncalibrated", "The PoE ports whose interface nothing tells.",
        told(uncalibrated), {200: answer({"ports": many(whole())})}, "operate",
    ),
    Route(
        "POST", "/switches/{index}/calibration", "calibrate", "Switch ports off and on, to learn their interfaces.",
        told(calibrate), {202: JOB}, "operate", thing({"ports": _PORTS, "confirm": _SURE}), tag="orders",
    ),
    Route(
        "DELETE", "/switches/{index}/calibration", "forget_calibration", "Forget what was learnt of its interfaces.",
        told(forget_calibration), {200: answer({"forgotten": flag()})}, "operate",
    ),
    Route(
        "GET", "/switches/{index}/record", "record", "The tables of a switch as text, without secrets, for the lab.",
        told(record), {200: answer({"text": text(most=10**8)})}, "admin",
        query={"anonymise": text("also without names", enum=["true", "false"])},
    ),
    Route(
        "GET", "/images/sources", "image_sources", "The files in the folder `images` that could be imported.",
        told(sources), {200: many(answer({"file": text(), "size": whole()}))}, "admin",
    ),
    Route(
        "POST", "/images", "import_image", "Make an image of a card image or tarball in the folder `images`.",
        told(import_source), {202: JOB}, "admin", _IMPORT, tag="orders",
    ),
)  # fmt: skip
