"""The JSON API, /api/v1: the handlers, and the table of routes from which it is served, checked and described."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from monitoring.inspection import examine
from monitoring.metrics import METRICS
from monitoring.operations import OperationError, Target, choose_image
from utility.hosts import parse_mac
from utility.rules import rule_json
from web.access import ROLES, make_token, set_password
from web.api_files import FILE_ROUTES
from web.auth import gate
from web.looks import find, image_view, image_views
from web.routes import ApiError, Call, Route, body_of, describe, told
from web.schemas import (
    AUDIT,
    CONFIRM,
    EVENT,
    JOB,
    MAC_PATTERN,
    PI,
    TARGETS,
    TOKEN,
    Schema,
    answer,
    flag,
    many,
    maybe,
    number,
    table,
    text,
    thing,
    whole,
)
from web.starting import PAGE, check_views
from web.surveys import SURVEY_ROUTES
from web.views import Json

LIMIT = whole("at most so many", minimum=1, maximum=1000)
MAX_ID = 2**53
DAY = 86400.0

FILE = answer(
    {
        "name": text(),
        "size": whole(),
        "done": whole(),
        "began": number(),
        "seconds": number(),
        "resent": whole(),
        "outcome": text(),
        "blksize": whole(),
    }
)
BOOT = answer(
    {
        "began": number("Unix time of its first word, or of the power where we switched it on"),
        "ended": maybe(number("when it was up, or last heard of; null: it is under way")),
        "seconds": number(),
        "outcome": text(enum=["up", "running", "failed", "broken off"]),
        "reason": text("why it failed", 2000),
        "installed": text("the image that was installed in it; empty: none"),
        "stages": many(
            answer(
                {
                    "stage": text("power, discover, lease, firmware, kernel, hello, format, image or boot"),
                    "began": number(),
                    "seconds": maybe(number("null: it goes on")),
                }
            )
        ),
        "files": many(FILE),
    }
)
SESSION = answer({"who": text(), "role": text(enum=list(ROLES)), "csrf": text(), "title": text(), "open": flag()})
PORT = answer(
    {
        "port": whole(),
        "address": text("that config.yaml gives it"),
        "mac": text("of the Pi with that address"),
        "protected": flag(),
        "label": text(),
        "poe": maybe(text("delivering, searching, off, none ...; null: nobody asked the switch")),
        "watts": maybe(number()),
        "link": maybe(flag()),
    }
)
ALERT = answer(
    {
        "id": whole(),
        "rule": text(),
        "subject": text("a MAC, switch:ADDRESS, or manager"),
        "name": text(),
        "severity": text(),
        "state": text("firing, silenced, suppressed, acknowledged or resolved"),
        "text": text(most=2000),
        "value": maybe(number()),
        "since": number(),
        "resolved_at": maybe(number()),
        "acknowledged": text("by whom"),
    }
)
CHECK = answer(
    {
        "area": text(),
        "severity": text(enum=["info", "warning", "error"]),
        "text": text(most=5000),
        "advice": text("what to do; empty: all is well", 5000),
    }
)
FOUND = answer(
    {
        "where": text("in words", 1000),
        "switch": whole("its number in config.yaml"),
        "port": maybe(whole("null: its tables do not tell")),
        "interface": text(),
        "watts": maybe(number()),
        "failed": many(text("a switch that did not answer, and why", 2000)),
    }
)
IMAGE = answer({"name": text(), "size": whole(), "when": number(), "in_use": flag("new installs get it")})
RULE = answer(
    {
        "name": text(),
        "rule": text(most=1000),
        "severity": text(),
        "enabled": flag(),
        "only": many(text(), description="patterns of the Pis it is for; empty: all"),
        "source": text("where it was written", 4096),
    }
)
SILENCE = answer(
    {"id": whole(), "subject": text(), "rule": text(), "until": number(), "by": text(), "why": text(most=2000)}
)
RACK = answer(
    {
        "title": text(),
        "server_runs": flag("a server boots and installs Pis"),
        "server_address": text(),
        "network": text(),
        "interface": text(),
        "switches": many(answer({"index": whole(), "name": text(), "address": text(), "ports": many(PORT)})),
    }
)
PICTURE = answer(
    {
        "now": number(),
        "rack": RACK,
        "pis": table(PI),
        "events": many(EVENT),
        "jobs": table(JOB),
        "alerts": many(ALERT),
    }
)


def mac_of(call: Call) -> str:
    """The Pi of the path, by MAC in any form; 404."""
    try:
        mac = parse_mac(call.path["mac"])
    except ValueError as error:
        raise ApiError(404, str(error)) from None
    if mac not in call.backend.pis():
        raise ApiError(404, f"no Pi with the MAC {mac} is known")
    return mac


# ------------------------------------------------------------------------------------------------------------- reading


def session(call: Call) -> Json:
    doors = gate()
    return {
        "who": call.caller.who,
        "role": call.caller.role,
        "csrf": csrf_of_request(),
        "title": call.backend.place.title,
        "open": doors.is_open,
    }


def csrf_of_request() -> str:
    """The token of this browser's cookie."""
    from flask import g  # noqa: PLC0415  # of the request that is answered

    return gate().access.csrf_token(g.cookie)


def picture(call: Call) -> Json:
    return call.backend.picture()


def rack(call: Call) -> Json:
    return call.backend.face()


def pis(call: Call) -> list[Json]:
    return list(call.backend.pis().values())


def pi(call: Call) -> Json:
    return call.backend.pis()[mac_of(call)]


def pi_events(call: Call) -> list[Json]:
    return call.backend.events(mac_of(call), cast("int", call.query.get("limit", 200)))


def pi_files(call: Call) -> list[Json]:
    return call.backend.files(mac_of(call), cast("int", call.query.get("limit", 200)))


def pi_boots(call: Call) -> list[Json]:
    return call.backend.boots(mac_of(call), cast("int", call.query.get("limit", 20)))


def pi_samples(call: Call) -> Json:
    query = cast("dict[str, float]", call.query)
    metric = str(call.query.get("metric", "temperature"))
    until = query.get("until", time.time())
    return call.backend.samples(
        mac_of(call), metric, query.get("since", until - DAY), until, int(query.get("points", 300))
    )


def events(call: Call) -> list[Json]:
    mac = call.query.get("mac")
    return call.backend.events(
        cast("str | None", mac), cast("int", call.query.get("limit", 200)), cast("int | None", call.query.get("after"))
    )


def orders(call: Call) -> list[Json]:
    names = call.backend.names()
    return [
        {"mac": each.mac, "name": names.get(each.mac, ""), "by": each.by, "when": each.ordered_at}
        for each in call.backend.rack.store.orders()
    ]


def jobs(call: Call) -> list[Json]:
    return list(call.backend.acts.jobs.views().values())


def job(call: Call) -> Json:
    found = call.backend.acts.jobs.view(call.path["id"])
    if found is None:
        raise ApiError(404, "there is no such job; they are forgotten after a while, and when the manager restarts")
    return found


def metrics(_call: Call) -> list[Json]:
    return [
        {"name": each.name, "unit": each.unit, "help": each.help, "kind": str(each.kind)} for each in METRICS.values()
    ]


def switch_ports(call: Call) -> Json:
    index = call.path["index"]
    found = call.backend.switch_ports(int(index)) if index.isdecimal() and len(index) < 5 else None
    if found is None:
        raise ApiError(404, f"there is no switch {index}; they are numbered from 0")
    return found


def doctor(call: Call) -> list[Json]:
    rack = call.backend.rack
    return check_views(examine(rack.config, rack.hosts, rack.problems_of, PAGE))


def findport(call: Call) -> Json:
    rack = call.backend.rack
    try:
        mac = parse_mac(call.path["mac"])
    except ValueError as error:
        raise ApiError(404, str(error)) from None
    return find(rack.config, mac, rack.hosts.find(mac))


def images(call: Call) -> list[Json]:
    return image_views(call.backend.rack.config)


def use_image(call: Call) -> Json:
    chosen = choose_image(call.backend.rack.config, str(body_of(call)["name"]), call.caller.who)
    call.backend.audit(call.caller.who, "use image", chosen.name, "new installs get it")
    return image_view(chosen)


def alerts(call: Call) -> list[Json]:
    every = call.query.get("all") == "true"
    return call.backend.alerts(not every, cast("int", call.query.get("limit", 1000)))


def alert_rules(call: Call) -> list[Json]:
    return [rule_json(each) for each in call.backend.rack.config.monitoring.rules]


def try_channels(call: Call) -> Json:
    return call.backend.acts.try_channels(call.caller, cast("str | None", body_of(call).get("channel")))


def silences(call: Call) -> list[Json]:
    names = ("id", "subject", "rule", "until", "by", "why")
    found = call.backend.rack.store.silences(time.time())
    return [{name: getattr(each, name) for name in names} for each in found]


# -------------------------------------------------------------------------------------------------------------- acting


def number_of(call: Call) -> int:
    """The number in the path; 404 where it is none."""
    if not call.path["id"].isdecimal() or len(call.path["id"]) > 15:
        raise ApiError(404, "there is no such number")
    return int(call.path["id"])


def acknowledge(call: Call) -> Json:
    number = number_of(call)
    if not call.backend.rack.store.acknowledge_alert(number, call.caller.who):
        raise ApiError(404, f"no alert {number} is open")
    call.backend.audit(call.caller.who, "acknowledge alert", str(number), "done")
    return {"acknowledged": True}


def add_silence(call: Call) -> Json:
    body = body_of(call)
    until = time.time() + 60 * cast("float", body["minutes"])
    subject, rule = str(body.get("subject", "*")), str(body.get("rule", "*"))
    number = call.backend.rack.store.add_silence(subject, rule, until, call.caller.who, str(body.get("why", "")))
    call.backend.audit(call.caller.who, "silence", f"{rule} of {subject}", f"until {until:.0f}")
    return {"id": number, "until": until}


def end_silence(call: Call) -> Json:
    number = number_of(call)
    if not call.backend.rack.store.end_silence(number, time.time()):
        raise ApiError(404, f"no silence {number} is in force")
    call.backend.audit(call.caller.who, "end silence", str(number), "done")
    return {"ended": True}


def targets_of(call: Call) -> list[Target]:
    return call.backend.acts.targets(cast("Sequence[object]", body_of(call)["targets"]))


def confirm(call: Call, targets: Sequence[Target], always: bool) -> None:
    """409 unless the caller said how many ports it is about."""
    said = body_of(call).get("confirm")
    if said != len(targets) and (always or len(targets) > 1 or said is not None):
        names = ", ".join(target.label for target in targets)
        raise ApiError(409, f'this is about {len(targets)}: {names}; if you mean it, send "confirm": {len(targets)}')


def restart(call: Call) -> Json:
    return call.backend.acts.restart(call.caller, targets_of(call))


def reinstall(call: Call) -> Json:
    targets = targets_of(call)
    confirm(call, targets, always=True)
    return call.backend.acts.reinstall(call.caller, targets)


def power(call: Call) -> Json:
    targets, on = targets_of(call), body_of(call)["state"] == "on"
    if not on:
        confirm(call, targets, always=False)
    return call.backend.acts.power(call.caller, targets, on)


def identify(call: Call) -> Json:
    targets = targets_of(call)
    confirm(call, targets, always=True)
    return call.backend.acts.identify(call.caller, targets)


def adopt(call: Call) -> list[Json]:
    """Each in turn; the first that cannot be is told, with those that were."""
    done: list[Json] = []
    for each in cast("Sequence[Mapping[str, str]]", body_of(call)["pis"]):
        try:
            host = call.backend.acts.adopt(
                call.caller, each["mac"], each.get("name", ""), each.get("address") or "0.0.0.0"
            )
        except OperationError as error:
            raise ApiError(409, str(error), more={"adopted": done}) from None
        done.append({"mac": host.mac, "name": host.name, "address": str(host.address)})
    return done


def cancel_order(call: Call) -> Json:
    if not call.backend.acts.cancel_order(call.caller, call.path["pi"]):
        raise ApiError(404, "no install is ordered for it")
    return {"cancelled": True}


# ---------------------------------------------------------------------------------------------------------- who may


def audit(call: Call) -> list[Json]:
    found = call.backend.place.store.audit(
        cast("int", call.query.get("limit", 200)), cast("int", call.query.get("before", 0))
    )
    return [
        {
            "id": each.id,
            "when": each.when,
            "who": each.who,
            "action": each.action,
            "subject": each.subject,
            "result": each.result,
        }
        for each in found
    ]


def tokens(call: Call) -> list[Json]:
    return [
        {"name": each.name, "role": each.role, "created": each.created} for each in call.backend.place.store.tokens()
    ]


def add_token(call: Call) -> Json:
    name, role = str(body_of(call)["name"]), str(body_of(call)["role"])
    token = make_token(call.backend.place.store, name, role, time.time())
    call.backend.audit(call.caller.who, "add token", name, role)
    return {"name": name, "role": role, "token": token}


def remove_token(call: Call) -> Json:
    if not call.backend.place.store.delete_token(call.path["name"]):
        raise ApiError(404, "there is no token of that name")
    call.backend.audit(call.caller.who, "remove token", call.path["name"], "done")
    return {"removed": True}


def change_password(call: Call) -> Json:
    """Ends every session, the caller's too."""
    place = call.backend.place
    if place.password:
        raise ApiError(409, "the password comes from PIMAN_WEB_PASSWORD; change it there")
    set_password(place.store, place.state_dir, str(body_of(call)["password"]))
    call.backend.audit(call.caller.who, "change the password", "", "done")
    return {"changed": True}


def openapi(call: Call) -> Json:
    return describe(ROUTES, f"{call.backend.place.title}: the API of Piman")


# ----------------------------------------------------------------------------------------------------------- the table


def act(path: str, summary: str, handler: Callable[[Call], Json], more: Mapping[str, Schema] | None = None) -> Route:
    """An order to ports: it answers 202 with a job."""
    required = {"targets": TARGETS, **{k: v for k, v in (more or {}).items() if k == "state"}}
    optional = {k: v for k, v in (more or {}).items() if k != "state"}
    name = path.removeprefix("/")
    return Route(
        "POST", path, name, summary, told(handler), {202: JOB}, "operate", thing(required, optional), tag="orders"
    )


_ORDER = answer({"mac": text(), "name": text(), "by": text(), "when": number()})
_METRIC = answer({"name": text(), "unit": text(), "help": text(), "kind": text()})
_SAMPLES = answer({"metric": text(), "unit": text(), "points": many(many(number(), minItems=4, maxItems=4))})
_ADOPT = thing(
    {
        "pis": many(
            thing(
                {"mac": text("of one that asked", 32, minLength=1)},
                {
                    "name": text("its hostname; one is made if it is left out", 63),
                    "address": text("one is picked if it is left out", 15),
                },
            ),
            minItems=1,
            maxItems=1000,
        )
    }
)
_NAME_OF_TOKEN = text("letters, digits, - _ and .", 64, minLength=1)

ROUTES: tuple[Route, ...] = (
    Route("GET", "/session", "session", "Who asks, and what that one may do.", session, {200: SESSION}, tag="access"),
    Route("GET", "/picture", "picture", "All that the page shows, at once.", told(picture), {200: PICTURE}),
    Route("GET", "/rack", "rack", "The switches and their ports.", told(rack), {200: RACK}),
    Route("GET", "/pis", "pis", "Every Pi, and every stranger that asked for an address.", told(pis), {200: many(PI)}),
    Route("GET", "/pis/{mac}", "pi", "One Pi.", told(pi), {200: PI}),
    Route(
        "GET", "/pis/{mac}/events", "pi_events", "Its timeline, the oldest first.", told(pi_events), {200: many(EVENT)},
        query={"limit": LIMIT},
    ),
    Route(
        "GET", "/pis/{mac}/files", "pi_files", "What it fetched over TFTP.", told(pi_files), {200: many(FILE)},
        query={"limit": LIMIT},
    ),
    Route(
        "GET", "/pis/{mac}/boots", "pi_boots", "Its boots, each with its stages and files; the oldest first.",
        told(pi_boots), {200: many(BOOT)}, query={"limit": LIMIT},
    ),
    Route(
        "GET", "/pis/{mac}/samples", "pi_samples", "A metric over time, as rows of when, mean, low, high.",
        told(pi_samples), {200: _SAMPLES},
        query={
            "metric": text(enum=list(METRICS)),
            "since": number("Unix time; a day before until", minimum=0, maximum=1e11),
            "until": number("Unix time; now", minimum=0, maximum=1e11),
            "points": whole("at most so many rows", minimum=2, maximum=2000),
        },
    ),
    Route(
        "GET", "/events", "events", "The newest events, the oldest of them first; or the next after an id.",
        told(events), {200: many(EVENT)},
        query={
            "mac": text("of this Pi alone", pattern=MAC_PATTERN),
            "limit": LIMIT,
            "after": whole("an id", minimum=0, maximum=MAX_ID),
        },
    ),
    Route(
        "GET", "/switches/{index}/ports", "switch_ports", "Ask a switch for its face: takes as long as it takes.",
        told(switch_ports), {200: {"type": "object"}},
    ),
    Route(
        "GET", "/findport/{mac}", "findport", "Ask every switch which port a MAC is on.", told(findport), {200: FOUND},
        "operate",
    ),
    Route(
        "GET", "/doctor", "doctor", "Look at everything that could keep Pis from booting: as `piman doctor`.",
        told(doctor), {200: many(CHECK)}, "operate",
    ),
    Route("GET", "/images", "images", "What Pis could be installed with.", told(images), {200: many(IMAGE)}),
    Route(
        "PUT", "/images", "use_image", "Choose what new installs get; those under way end as they began.",
        told(use_image), {200: IMAGE}, "admin", thing({"name": text("or how it begins", 200, minLength=1)}),
    ),
    Route(
        "GET", "/alerts", "alerts", "What is wrong, the oldest first.", told(alerts), {200: many(ALERT)},
        query={"all": text("also those that are over", enum=["true", "false"]), "limit": LIMIT}, tag="alerts",
    ),
    Route(
        "POST", "/alerts/{id}/acknowledge", "acknowledge", "Say that you know of it.", told(acknowledge),
        {200: answer({"acknowledged": flag()})}, "operate", tag="alerts",
    ),
    Route(
        "GET", "/alerts/rules", "alert_rules", "Every rule, and where it was written.", told(alert_rules),
        {200: many(RULE)}, tag="alerts",
    ),
    Route(
        "POST", "/alerts/test", "test_channels", "Send a test message to one channel, or to all.",
        told(try_channels), {202: JOB}, "operate", thing({}, {"channel": text("its name in config.yaml", 100)}),
        tag="alerts",
    ),
    Route("GET", "/silences", "silences", "What is not told now.", told(silences), {200: many(SILENCE)}, tag="alerts"),
    Route(
        "POST", "/silences", "add_silence", "Let nobody be told of what matches, for a while.", told(add_silence),
        {201: answer({"id": whole(), "until": number()})}, "operate",
        thing(
            {"minutes": number("how long", minimum=1, maximum=525600)},
            {
                "subject": text("a pattern of names, like pi1 or pi*", 200, minLength=1),
                "rule": text("a pattern of rules, like temperature*", 200, minLength=1),
                "why": text("", 300),
            },
        ),
        tag="alerts",
    ),
    Route(
        "DELETE", "/silences/{id}", "end_silence", "End a silence before its time.", told(end_silence),
        {200: answer({"ended": flag()})}, "operate", tag="alerts",
    ),
    Route("GET", "/metrics", "metrics", "What is measured of a Pi.", metrics, {200: many(_METRIC)}),
    act("/restart", "Power-cycle ports.", restart),
    act("/reinstall", "Erase the cards of these Pis, and install them anew.", reinstall, {"confirm": CONFIRM}),
    act("/power", "Turn ports off, or on.", power, {"state": text(enum=["on", "off"]), "confirm": CONFIRM}),
    act("/identify", "Let the power of ports blink, to find them; the Pis restart.", identify, {"confirm": CONFIRM}),
    Route(
        "POST", "/adopt", "adopt", "Write Pis into hosts.csv.", told(adopt),
        {200: many(answer({"mac": text(), "name": text(), "address": text()}))}, "operate", _ADOPT, tag="orders",
    ),
    Route("GET", "/orders", "orders", "The installs that wait.", told(orders), {200: many(_ORDER)}, tag="orders"),
    Route(
        "DELETE", "/orders/{pi}", "cancel_order", "Take back the order of an install.", told(cancel_order),
        {200: answer({"cancelled": flag()})}, "operate", tag="orders",
    ),
    Route("GET", "/jobs", "jobs", "The orders under way, and the last ones.", jobs, {200: many(JOB)}, tag="orders"),
    Route("GET", "/jobs/{id}", "job", "One of them.", job, {200: JOB}, tag="orders"),
    Route(
        "GET", "/audit", "audit", "Who did what, the newest first.", told(audit), {200: many(AUDIT)}, "admin",
        query={"limit": LIMIT, "before": whole("an id", minimum=1, maximum=MAX_ID)}, tag="access",
    ),
    Route("GET", "/tokens", "tokens", "The tokens there are.", told(tokens), {200: many(TOKEN)}, "admin", tag="access"),
    Route(
        "POST", "/tokens", "add_token", "Make a token; it is shown this once.", told(add_token),
        {201: answer({"name": text(), "role": text(), "token": text()})}, "admin",
        thing({"name": _NAME_OF_TOKEN, "role": text(enum=list(ROLES))}), tag="access",
    ),
    Route(
        "DELETE", "/tokens/{name}", "remove_token", "Make a token worthless.", told(remove_token),
        {200: answer({"removed": flag()})}, "admin", tag="access",
    ),
    Route(
        "PUT", "/password", "change_password", "Set the password; every session ends.", told(change_password),
        {200: answer({"changed": flag()})}, "admin", thing({"password": text("", 1024, minLength=8)}), tag="access",
    ),
    *FILE_ROUTES,
    *SURVEY_ROUTES,
    Route("GET", "/openapi.json", "openapi", "This description.", openapi, {200: {"type": "object"}}, tag="access"),
)  # fmt: skip
