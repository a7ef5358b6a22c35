"""The HTML pages. They hold hardly any data: the script fills them from the event stream and the API."""

from __future__ import annotations

from flask import Blueprint, current_app, render_template

from web.backend import Backend

blueprint = Blueprint("pages", __name__)


def backend() -> Backend:
    found: Backend = current_app.extensions["piman"]
    return found


@blueprint.get("/")
def rack() -> str:
    """Home: the rack."""
    return render_template("rack.html", title=backend().place.title)
