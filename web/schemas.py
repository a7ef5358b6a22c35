"""The shapes of what the API takes and gives, as JSON Schema. Data only."""

from __future__ import annotations

from collections.abc import Mapping

Schema = Mapping[str, object]

MAC_PATTERN = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"


def text(description: str = "", most: int = 300, **more: object) -> dict[str, object]:
    """A string."""
    about = {"description": description} if description else {}
    return {"type": "string", "maxLength": most, **about, **more}


def number(description: str = "", **more: object) -> dict[str, object]:
    about = {"description": description} if description else {}
    return {"type": "number", **about, **more}


def whole(description: str = "", **more: object) -> dict[str, object]:
    about = {"description": description} if description else {}
    return {"type": "integer", **about, **more}


def flag(description: str = "") -> dict[str, object]:
    return {"type": "boolean", **({"description": description} if description else {})}


def maybe(schema: Schema) -> dict[str, object]:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def many(items: Schema, **more: object) -> dict[str, object]:
    return {"type": "array", "items": dict(items), **more}


def table(values: Schema, description: str = "") -> dict[str, object]:
    """An object whose keys are not known before."""
    about = {"description": description} if description else {}
    return {"type": "object", "additionalProperties": dict(values), **about}


def thing(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> dict[str, object]:
    """An object with these keys and no others."""
    properties = {**required, **(optional or {})}
    return {
        "type": "object",
        "properties": {name: dict(schema) for name, schema in properties.items()},
        "required": list(required),
        "additionalProperties": False,
    }


def answer(properties: Mapping[str, Schema]) -> dict[str, object]:
    """An object of ours: these keys are promised, others may join them in a later version."""
    return {**thing(properties), "additionalProperties": True}


MAC = text("aa:bb:cc:dd:ee:ff", pattern=MAC_PATTERN)
WHEN = number("Unix time in seconds")
PI = answer(
    {
        "mac": MAC,
        "name": text("its hostname, else its address; empty for a stranger"),
        "address": text(),
        "known": flag("it is in hosts.csv"),
        "waiting": flag("a Raspberry Pi that could be adopted"),
        "switch": maybe(whole("its number in config.yaml")),
        "port": maybe(whole("from 1")),
        "stage": maybe(text("discover, lease, firmware, kernel, hello, format, image, boot, up or failed")),
        "since": number("when the stage began"),
        "done": whole("bytes of the stage's transfer"),
        "total": whole("bytes; 0: not known"),
        "percent": maybe(number()),
        "heard": text(),
        "heard_at": WHEN,
        "sent": text(),
        "sent_at": WHEN,
        "ordered": flag("a fresh install is ordered"),
        "health": text(enum=["ok", "warning", "error", "unknown"]),
        "trouble": text("what is wrong, in a sentence", 2000),
        "image": text(),
        "model": text(),
        "serial": text(),
        "vendor": text(),
        "facts": table(text()),
        "values": table(number(), "what was measured last, by the metric's name"),
        "up": maybe(flag("whether it works, by all the evidence; null: nobody polls")),
        "evidence": text("why we think so", 1000),
    }
)
EVENT = answer(
    {
        "id": whole(),
        "when": WHEN,
        "mac": text("empty: the manager itself"),
        "name": text(),
        "severity": text(enum=["info", "warning", "error"]),
        "text": text(most=2000),
    }
)
RESULT = answer({"target": text(), "ok": flag(), "text": text(most=2000)})
JOB = answer(
    {
        "id": text(),
        "kind": text(),
        "who": text(),
        "targets": many(text()),
        "state": text(enum=["running", "done", "partly", "failed"]),
        "error": text(most=4000),
        "began": WHEN,
        "ended": maybe(WHEN),
        "steps": many(answer({"when": WHEN, "target": text(), "text": text(most=2000)})),
        "results": many(RESULT),
    }
)
PROBLEM = answer(
    {"file": text(most=4096), "line": whole("from 1; 0: the whole file"), "key": text(), "text": text(most=2000)}
)
ERROR = {**answer({"error": text(most=4000)}), "description": "What was wrong, in a sentence."}
ERROR["properties"] = {"error": text(most=4000), "problems": many(PROBLEM)}
TARGETS = many(
    {
        "anyOf": [
            text("a Pi, by hostname, address or MAC", 64, minLength=1),
            thing(
                {
                    "switch": text("its number, name or address", 64, minLength=1),
                    "ports": many(whole(minimum=1, maximum=1024), minItems=1, maxItems=1024),
                }
            ),
        ]
    },
    minItems=1,
    maxItems=1000,
)
CONFIRM = whole("how many Pis this is about, as a check; required for more than one", minimum=0, maximum=100000)
AUDIT = answer(
    {
        "id": whole(),
        "when": WHEN,
        "who": text(),
        "action": text(),
        "subject": text(most=4000),
        "result": text(most=4000),
    }
)
TOKEN = answer({"name": text(), "role": text(enum=["read", "operate", "admin"]), "created": WHEN})
