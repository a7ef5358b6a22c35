"""The JSON API, /api/v1."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from web.backend import Backend

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


def backend() -> Backend:
    found: Backend = current_app.extensions["piman"]
    return found


@blueprint.get("/rack")
def rack() -> Response:
    return jsonify(backend().face())


@blueprint.get("/pis")
def pis() -> Response:
    return jsonify(list(backend().pis().values()))
