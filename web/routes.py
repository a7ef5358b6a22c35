"""What a route of the API is: a table entry that is served, checks its input, and describes itself in OpenAPI 3.1."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, cast

import fastjsonschema
from flask import Flask, Response, make_response, request
from werkzeug.exceptions import HTTPException

from monitoring.operations import OperationError
from monitoring.store import StoreError
from utility.config import Problem
from utility.images import ImportFailedError
from web.access import AccessError, Caller
from web.auth import caller, refuse
from web.backend import Backend
from web.jobs import TooManyError
from web.schemas import ERROR, Schema
from web.views import Json, problem_view

VERSION = "1.0"
PREFIX = "/api/v1"
# What any route may answer, before its handler is asked.
REFUSALS = {
    400: "The input is not as it is described.",
    401: "Nobody we know.",
    403: "Not from here, or not with this role.",
    404: "There is no such thing.",
    405: "Not by this method.",
    409: "It cannot be done now; the sentence says why.",
    413: "Too long.",
    415: "The body is not JSON.",
    429: "Too much at once; later.",
}


class ApiError(Exception):
    """What a handler cannot do, with its status."""

    def __init__(self, status: int, text: str, problems: Sequence[Problem] = (), more: Json | None = None) -> None:
        super().__init__(text)
        self.status, self.problems, self.more = status, problems, more or {}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: who asks, the parts of the path, the query and the body."""

    backend: Backend
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, object]
    body: object


Handler = Callable[[Call], object]


def body_of(call: Call) -> dict[str, object]:
    """The body of a route whose schema says that it is an object."""
    return cast("dict[str, object]", call.body)


def told(handler: Handler) -> Handler:
    """Turn what an order may fail of into an answer."""

    def handle(call: Call) -> object:
        try:
            return handler(call)
        except (OperationError, StoreError, AccessError, ImportFailedError) as error:
            raise ApiError(409, str(error)) from None
        except TooManyError as error:
            raise ApiError(429, str(error)) from None

    return handle


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    role      "read", "operate" or "admin"
    body      what it takes as JSON, None for nothing
    query     its parameters, all optional
    answers   status -> what it gives; beside these come REFUSALS
    """

    method: str
    path: str  # with {parts}
    name: str
    summary: str
    handler: Handler
    answers: Mapping[int, Schema]
    role: str = "read"
    body: Schema | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    tag: str = "rack"


def register(app: Flask, backend: Backend, routes: Sequence[Route]) -> None:
    """Let the application answer the routes."""
    for route in routes:
        view = _view(backend, route)
        rule = PREFIX + re.sub(r"\{(\w+)\}", r"<\1>", route.path)
        app.add_url_rule(rule, f"api.{route.name}", view, methods=[route.method], provide_automatic_options=False)


def _view(backend: Backend, route: Route) -> Callable[..., Response]:
    check_body = _Check(route.body) if route.body is not None else None
    check_query = _Check(
        {"type": "object", "properties": dict(route.query), "additionalProperties": False}, "the query"
    )

    def view(**path: str) -> Response:
        try:
            query = check_query(_typed_query(route.query))
            body = check_body(_read_body()) if check_body else None
            assert isinstance(query, dict)
            found = route.handler(Call(backend, caller(), path, query, body))
        except ApiError as error:
            answer: Json = {"error": str(error), **error.more}
            if error.problems:
                answer["problems"] = [problem_view(each) for each in error.problems]
            return _json(error.status, answer)
        return found if isinstance(found, Response) else _json(min(route.answers), found)

    view.piman_role = route.role  # type: ignore[attr-defined]
    return view


def _json(status: int, value: object) -> Response:
    text = json.dumps(value, separators=(",", ":"))
    return Response(text if status != 204 else "", status, mimetype="application/json")


class _Check:
    """A schema as a function, compiled when first used."""

    def __init__(self, schema: Schema, name: str = "the body") -> None:
        self._schema, self._name = schema, name
        self._compiled: Callable[[object], object] | None = None

    def __call__(self, value: object) -> object:
        self._compiled = self._compiled or fastjsonschema.compile(dict(self._schema), use_default=False)
        try:
            return self._compiled(value)
        except fastjsonschema.JsonSchemaException as error:
            text = str(error)
            raise ApiError(400, self._name + text.removeprefix("data") if text.startswith("data") else text) from None


def _typed_query(known: Mapping[str, Schema]) -> dict[str, object]:
    """The parameters as the types that their schemas want; what is none stays text, and is refused by the schema."""
    values: dict[str, object] = {}
    for name, given in request.args.items(multi=True):
        if name in values:
            raise ApiError(400, f"the query has {name} twice")
        kind = known.get(name, {}).get("type")
        values[name] = given
        if kind == "integer" and re.fullmatch(r"-?[0-9]{1,16}", given):
            values[name] = int(given)
        elif kind == "number" and re.fullmatch(r"-?[0-9]{1,16}(\.[0-9]{1,16})?", given):
            values[name] = float(given)
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _read_body() -> object:
    if request.mimetype != "application/json":
        raise ApiError(415, "send JSON, with Content-Type: application/json")
    try:
        value: object = json.loads(request.get_data().decode(), parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None
    return value


def answer_errors(app: Flask) -> None:
    """404, 405, 413 and the like, and what should not happen, in the form of whoever asked."""

    def of_http(error: HTTPException) -> Response:
        response = refuse(error.code or 500, error.description or error.name)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    def of_us(error: Exception) -> Response:
        app.logger.error("%s %s: %s", request.method, request.path, type(error).__name__, exc_info=error)
        return make_response(refuse(500, "this should not have happened; the log says what did"))

    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, of_us)


def describe(routes: Sequence[Route], title: str) -> Json:
    """The description of all routes, OpenAPI 3.1."""
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "description": "Everything that the page and the commands can do.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by `piman token add NAME --role ROLE`.",
                }
            },
            "schemas": {"Error": ERROR},
        },
        "security": [{"token": []}, {}],
    }


def _operation(route: Route) -> Json:
    parts = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parts]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": dict(s)} for name, s in route.query.items()
    ]
    failed = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, object] = {
        str(status): {"description": text, "content": failed} for status, text in REFUSALS.items()
    }
    for status, schema in route.answers.items():
        content = {"application/json": {"schema": dict(schema)}} if schema else {}
        responses[str(status)] = {"description": "Done." if status < 300 else "Refused.", "content": content}
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs the role {route.role}.",
        "tags": [route.tag],
        "parameters": parameters,
        "responses": responses,
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": dict(route.body)}}}
    return operation
