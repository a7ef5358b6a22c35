"""The API's part for config.yaml, hosts.csv and the first steps: handlers and their routes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import cast

from monitoring.operations import OperationError
from utility.config import ConfigError, SnmpAccess
from utility.config_edit import EditError, values_of
from web import wizard
from web.auth import gate
from web.editing import ConfigFile, ConflictError, Draft, HostsFile, draft_view
from web.fields import LISTS, field_views, list_views, switch_fields, switch_views
from web.routes import ApiError, Call, Handler, Route, body_of
from web.schemas import PROBLEM, Schema, answer, flag, many, maybe, number, table, text, thing, whole
from web.starting import start_view
from web.views import Json

MAX_TEXT = 300_000
File = ConfigFile | HostsFile
Make = Callable[[bytes], bytes]


def told(handler: Handler) -> Handler:
    """Turn what an edit may fail of into an answer."""

    def handle(call: Call) -> object:
        try:
            return handler(call)
        except (ConflictError, OperationError) as error:
            raise ApiError(409, str(error)) from None
        except EditError as error:
            raise ApiError(409, str(error)) from None
        except ConfigError as error:
            raise ApiError(409, "this would not be a good file; nothing was written", error.problems) from None
        except OSError as error:
            raise ApiError(409, f"the file cannot be read or written: {error.strerror or error}") from None

    return handle


def config_of(call: Call) -> File:
    return call.backend.config_file


def hosts_of(call: Call) -> File:
    return call.backend.hosts_file


# ------------------------------------------------------------------------------------------------- both files alike


def change_of(call: Call, file: File) -> Make:
    """The change that a body describes, as a whole text or in single steps."""
    body = body_of(call)
    if "text" in body:
        return file.of_text(str(body["text"]))
    return file.of_changes(cast("Sequence[Json]", body.get("changes", [])))


def check(file_of: Callable[[Call], File]) -> Handler:
    def handle(call: Call) -> Json:
        file = file_of(call)
        return draft_view(file, file.draft(change_of(call, file)))

    return told(handle)


def write(file_of: Callable[[Call], File]) -> Handler:
    def handle(call: Call) -> Json:
        file, make = file_of(call), change_of(call, file_of(call))
        return written(call, file, file.write(str(body_of(call)["base"]), make, call.caller.who), "edit")

    return told(handle)


def written(call: Call, file: File, draft: Draft, action: str) -> Json:
    """Note it, put it in force, and show the file as it is now."""
    applied = "now"
    if not draft.changes_nothing:
        call.backend.audit(call.caller.who, f"{action} {file.name}", file.name, draft.difference)
        if isinstance(file, ConfigFile) and not call.backend.reopen():
            applied = "soon"  # the server looks at the file about once a second
    data = file.read()
    return {"applied": applied, "text": file.shown(data), "base": file.base(data), "diff": draft.difference}


def versions(file_of: Callable[[Call], File]) -> Handler:
    return told(lambda call: file_of(call).versions.list())


def version(file_of: Callable[[Call], File]) -> Handler:
    def handle(call: Call) -> Json:
        file = file_of(call)
        data = old_version(call, file)
        draft = file.draft(lambda _before: data)
        return {"text": file.shown(data), "diff": draft.difference, "problems": draft_view(file, draft)["problems"]}

    return told(handle)


def old_version(call: Call, file: File) -> bytes:
    data = file.versions.read(call.path["id"])
    if data is None:
        raise ApiError(404, "there is no such version")
    return data


def restore(file_of: Callable[[Call], File]) -> Handler:
    def handle(call: Call) -> Json:
        file = file_of(call)
        data = old_version(call, file)
        return written(
            call, file, file.write(str(body_of(call)["base"]), lambda _before: data, call.caller.who), "restore"
        )

    return told(handle)


# --------------------------------------------------------------------------------------------------------- each alone


def read_config(call: Call) -> Json:
    file = call.backend.config_file
    data = file.read()
    draft = file.draft(lambda before: before)
    values: Mapping[str, str] = {}
    problem = ""
    try:
        values = values_of(data.decode("utf-8-sig", "replace").replace("\r\n", "\n"))
    except EditError as error:
        problem = str(error)
    count = 1 + max((int(key[9:].partition("]")[0]) for key in values if key.startswith("switches[")), default=-1)
    new: Json = {"key": "switches", "title": "Switches", "one": "switch", "help": "", "named": False, "entries": []}
    return {
        "text": file.shown(data),
        "base": file.base(data),
        "fields": field_views(values),
        "switches": switch_views(values, count),
        "lists": [{**new, "fields": switch_fields()}, *list_views(values)],
        "problems": draft_view(file, draft)["problems"],
        "form": not problem,
        "writable": os.access(file.path if file.path.exists() else file.path.parent, os.W_OK),
        "path": str(file.path),
    }


def read_hosts(call: Call) -> Json:
    file = call.backend.hosts_file
    data = file.read()
    draft = file.draft(lambda before: before)
    return {
        "text": file.shown(data),
        "base": file.base(data),
        "rows": file.rows(),
        "problems": draft_view(file, draft)["problems"],
    }


def first_steps(call: Call) -> Json:
    links = wizard.interfaces()
    config_path = call.backend.place.config_path
    return {
        "needed": not call.backend.is_set_up,
        "path": str(config_path),
        "interfaces": links,
        "proposal": wizard.proposal(links, wizard.links_with_router()),
        "image": wizard.image_view(
            call.backend.rack.config.image
            if call.backend.is_set_up
            else config_path.absolute().parent / "install" / "boot" / "rootfs.tgz"
        ),
    }


def first_switch(call: Call) -> Json:
    body = body_of(call)
    access = call.backend.rack.config.snmp if call.backend.is_set_up else SnmpAccess()
    community = str(body.get("read_community") or "")
    try:
        address = IPv4Address(str(body["address"]))
    except ValueError:
        raise ApiError(409, f"{body['address']!r} is no IPv4 address") from None
    return wizard.try_switch(address, replace(access, read_community=community) if community else access)


def first_check(call: Call) -> Json:
    file = call.backend.config_file
    wanted = wizard.config_text(body_of(call)).encode()
    return draft_view(file, file.draft(lambda _before: wanted))


def first_apply(call: Call) -> Json:
    """Write the first config.yaml; never over one that is there."""
    file = call.backend.config_file
    if file.read():
        raise ApiError(409, f"{file.path} exists already; edit it")
    wanted = wizard.config_text(body_of(call)).encode()
    draft = file.write(file.base(b""), lambda _before: wanted, call.caller.who)
    return written(call, file, draft, "make")


def before_start(call: Call) -> Json:
    rack = call.backend.rack
    return start_view(rack.config, rack.server_runs(), call.backend.starter, gate().port, rack.problems_of)


def start(call: Call) -> Json:
    """Let the program behind this page go on as the manager."""
    if call.backend.rack.server_runs():
        raise ApiError(409, "a manager runs already")
    starter = call.backend.starter
    if starter is None or starter.start is None:
        command = f"; start it with `{starter.commands[0]}`" if starter else ""
        raise ApiError(409, f"this program may not serve Pis: it needs root{command}")
    call.backend.audit(call.caller.who, "start the manager", "", "asked")
    starter.start()
    return {"starts": True}


# ----------------------------------------------------------------------------------------------------------- the table

_BASE = text("the hash that came with the file", 64, minLength=1)
_TEXT = text("the whole file", MAX_TEXT)
_VALUE: Schema = {
    "anyOf": [
        {"type": "null", "description": "the key goes"},
        text("", 500),
        many({"type": ["string", "null"], "maxLength": 100}, maxItems=300),
    ]
}
_LIST_NAME = text("a list whose entries have keys", enum=[each.key for each in LISTS])
_CONFIG_CHANGES = many(
    {
        "anyOf": [
            thing({"key": text("like ports.tftp or switches[0].name", 200, minLength=1), "value": _VALUE}),
            thing({"add_switch": table(_VALUE, "its keys: address, name, pi_addresses ...")}),
            thing({"remove_switch": whole("its number", minimum=0, maximum=1000)}),
            thing({"add_item": thing({"list": _LIST_NAME, "values": table(_VALUE, "the keys of the new entry")})}),
            thing({"remove_item": thing({"list": _LIST_NAME, "index": whole("from 0", minimum=0, maximum=1000)})}),
        ]
    },
    maxItems=200,
)
_HOST_CHANGES = many(
    thing(
        {"op": text(enum=["add", "edit", "remove"]), "mac": text("", 32, minLength=1)},
        {"address": text("0.0.0.0: one is picked", 15), "hostname": text("", 63)},
    ),
    maxItems=1000,
)
_FIELD = answer(
    {
        "key": text(),
        "section": text(),
        "label": text(),
        "help": text(),
        "kind": text(),
        "default": text(),
        "choices": many(text()),
        "required": flag(),
        "unit": text(),
        "live": flag(),
        "of": many(text(), description="the values of `type` or `driver` for which it is; empty: all"),
        "secret": flag(),
        "set": flag(),
        "value": {},
    }
)
_DRAFT = answer({"problems": many(PROBLEM), "diff": text(most=10**7), "text": text(most=10**7), "base": text()})
_WRITTEN = answer(
    {"applied": text(enum=["now", "soon"]), "text": text(most=10**7), "base": text(), "diff": text(most=10**7)}
)
_VERSION = answer({"id": text(), "when": number(), "who": text(), "size": whole()})
_CONFIG = answer(
    {
        "text": text(most=10**7),
        "base": text(),
        "fields": many(_FIELD),
        "switches": many(answer({"index": whole(), "fields": many(_FIELD), "pi_addresses": many(maybe(text()))})),
        "lists": many(
            answer(
                {
                    "key": text(),
                    "title": text(),
                    "one": text(),
                    "help": text(),
                    "named": flag("its entries are keys with names of their own"),
                    "entries": many(many(_FIELD)),
                    "fields": many(_FIELD),
                }
            )
        ),
        "problems": many(PROBLEM),
        "form": flag("it can be edited by its keys"),
        "writable": flag(),
        "path": text(most=4096),
    }
)
_HOSTS = answer(
    {
        "text": text(most=10**7),
        "base": text(),
        "rows": many(answer({"mac": text(), "address": text(), "hostname": text(), "last_seen": whole()})),
        "problems": many(PROBLEM),
    }
)
_INTERFACE = answer(
    {"name": text(), "up": flag(), "carrier": flag(), "address": text(), "mask": text(), "networks": many(text())}
)
_WIZARD = answer(
    {
        "needed": flag("there is no config.yaml yet"),
        "path": text(most=4096),
        "interfaces": many(_INTERFACE),
        "proposal": table(text()),
        "image": answer({"path": text(most=4096), "size": whole(), "problem": text(), "good": flag()}),
    }
)
_FIRST = thing(
    {
        "private_number": text("", 10, pattern="^[0-9]*$"),
        "server_address": text("", 64, pattern="^[^\\n\\r]*$"),
        "subnet_mask": text("", 64, pattern="^[^\\n\\r]*$"),
        "interface": text("", 64, pattern="^[^\\n\\r]*$"),
        "switches": many(
            thing(
                {"address": text("", 64, pattern="^[^\\n\\r]*$")},
                {
                    "name": text("", 64, pattern="^[^\\n\\r]*$"),
                    "ports": whole("how many get an address", minimum=0, maximum=wizard.MAX_PORTS),
                    "protected": many(whole(minimum=1, maximum=1024), maxItems=64, description="ports that lead on"),
                },
            ),
            maxItems=64,
        ),
    },
    {"unknown_pis": text(enum=["ignore", "approve"])},
)
_BEFORE_START = answer(
    {
        "runs": flag("a manager with this config.yaml runs"),
        "can": flag("the program behind this page can go on as the manager"),
        "commands": many(text("what starts it otherwise", 4096)),
        "address": text("where the manager's page will be"),
        "here": flag("that is where this page is, whatever a tunnel calls it"),
        "checks": many(
            answer({"area": text(), "severity": text(), "text": text(most=5000), "advice": text(most=5000)})
        ),
    }
)
_TRIED = answer(
    {
        "ok": flag(),
        "description": text(),
        "ports": many(whole()),
        "leads_on": many(whole()),
        "text": text(most=2000),
        "advice": text(most=2000),
    }
)


def _of_file(name: str, file_of: Callable[[Call], File], read: Handler, shown: Schema, changes: Schema) -> list[Route]:
    """The routes that both files have."""
    path, tag = f"/{name}", "files"
    change = {"text": _TEXT, "changes": changes}
    return [
        Route("GET", path, name, "The file, and its form.", told(read), {200: shown}, "admin", tag=tag),
        Route(
            "POST", f"{path}/check", f"check_{name}", "What a change would be, and what would be wrong with it.",
            check(file_of), {200: _DRAFT}, "admin", thing({}, change), tag=tag,
        ),
        Route(
            "PUT", path, f"write_{name}", "Make a change; 409 where the file is no longer the one of `base`.",
            write(file_of), {200: _WRITTEN}, "admin", thing({"base": _BASE}, change), tag=tag,
        ),
        Route(
            "GET", f"{path}/versions", f"{name}_versions", "The contents it had, the newest first.", versions(file_of),
            {200: many(_VERSION)}, "admin", tag=tag,
        ),
        Route(
            "GET", f"{path}/versions/{{id}}", f"{name}_version", "One of them, and what going back to it would change.",
            version(file_of),
            {200: answer({"text": text(most=10**7), "diff": text(most=10**7), "problems": many(PROBLEM)})}, "admin",
            tag=tag,
        ),
        Route(
            "POST", f"{path}/versions/{{id}}/restore", f"restore_{name}", "Go back to it.", restore(file_of),
            {200: _WRITTEN}, "admin", thing({"base": _BASE}), tag=tag,
        ),
    ]  # fmt: skip


FILE_ROUTES: tuple[Route, ...] = (
    *_of_file("config", config_of, read_config, _CONFIG, _CONFIG_CHANGES),
    *_of_file("hosts", hosts_of, read_hosts, _HOSTS, _HOST_CHANGES),
    Route("GET", "/wizard", "wizard", "This machine, as the first steps need it.",
          told(first_steps), {200: _WIZARD}, "admin", tag="files"),
    Route(
        "POST", "/wizard/switch", "try_switch", "Ask a switch what it is.", told(first_switch), {200: _TRIED}, "admin",
        thing({"address": text("", 64)}, {"read_community": text("", 255)}), tag="files",
    ),
    Route(
        "POST", "/wizard/check", "check_wizard", "The first config.yaml, and what would be wrong with it.",
        told(first_check), {200: _DRAFT}, "admin", _FIRST, tag="files",
    ),
    Route(
        "POST", "/wizard/apply", "apply_wizard", "Write the first config.yaml.", told(first_apply), {200: _WRITTEN},
        "admin", _FIRST, tag="files",
    ),
    Route(
        "GET", "/wizard/start", "before_start", "What is still amiss before the manager starts.", told(before_start),
        {200: _BEFORE_START}, "admin", tag="files",
    ),
    Route(
        "POST", "/wizard/start", "start", "Let the program behind this page, `piman config`, go on as the manager.",
        told(start), {200: answer({"starts": flag()})}, "admin", tag="files",
    ),
)  # fmt: skip
