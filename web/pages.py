"""The HTML pages. They hold hardly any data: the script fills them from the event stream and the API."""

from __future__ import annotations

import io

from flask import Blueprint, Response, current_app, make_response, redirect, render_template, url_for

from utility.hosts import parse_mac
from web.api import ROUTES
from web.auth import needs, refuse
from web.backend import Backend
from web.routes import PREFIX

blueprint = Blueprint("pages", __name__)


def backend() -> Backend:
    found: Backend = current_app.extensions["piman"]
    return found


@blueprint.get("/")
def rack() -> Response:
    """Home: the rack; or the first steps, where there is none yet."""
    if not backend().is_set_up:
        return make_response(redirect(url_for("pages.wizard")))
    return make_response(render_template("rack.html"))


@blueprint.get("/pis")
def pis() -> str:
    """The rack as a table."""
    return render_template("pis.html")


@blueprint.get("/pi/<mac>")
def pi(mac: str) -> Response:
    """One Pi."""
    try:
        return make_response(render_template("pi.html", mac=parse_mac(mac)))
    except ValueError as error:
        return refuse(404, str(error))


@blueprint.get("/alerts")
def alerts() -> str:
    return render_template("alerts.html")


@blueprint.get("/log")
def log() -> str:
    """The timeline of all Pis."""
    return render_template("log.html")


@blueprint.get("/config")
@needs("admin")
def config() -> str:
    """config.yaml."""
    return render_template("config.html")


@blueprint.get("/hosts")
@needs("admin")
def hosts() -> str:
    """hosts.csv."""
    return render_template("hosts.html")


@blueprint.get("/wizard")
@needs("admin")
def wizard() -> str:
    """The first steps."""
    return render_template("wizard.html")


@blueprint.get("/access")
@needs("admin")
def access() -> str:
    """Password, tokens, and who did what."""
    return render_template("access.html")


@blueprint.get("/api")
def api() -> str:
    """The API, described for people."""
    return render_template("api.html", routes=ROUTES, prefix=PREFIX)


@blueprint.get("/labels")
def labels() -> str:
    """A label for each port, to print: its code leads to the Pi's page."""
    return render_template("labels.html")


@blueprint.get("/pi/<mac>/code.svg")
def code(mac: str) -> Response:
    """A QR code that leads to a Pi's page, by the name under which we are asked."""
    import segno  # noqa: PLC0415  # labels are seldom printed

    try:
        target = url_for("pages.pi", mac=parse_mac(mac), _external=True)
    except ValueError as error:
        return refuse(404, str(error))
    drawn = io.BytesIO()
    segno.make(target, error="m", micro=False).save(drawn, kind="svg", scale=4, border=2)
    response = make_response(drawn.getvalue())
    response.mimetype = "image/svg+xml"
    return response
