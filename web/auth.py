"""Lets requests in or not: the name they ask for, where they come from, whose they are, and what that one may do.

In this order: the Host must be a name of ours (else another site's name may have been pointed at us); the caller is
known by a token, by a cookie, or by sitting at this machine where there is no password; an order must come from our own
page.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, current_app, g, make_response, redirect, render_template, request, url_for

from utility.config import Web
from web.access import Access, AccessError, Caller

blueprint = Blueprint("auth", __name__)
PROGRAM_PATHS = frozenset({"/events", "/metrics", "/sd"})  # who asks there has no use for a page to log in
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
View = TypeVar("View", bound=Callable[..., object])


def needs(role: str) -> Callable[[View], View]:
    """Mark a view with the role that it needs; without a mark it is `read`. "" is for everybody."""

    def mark(view: View) -> View:
        view.piman_role = role  # type: ignore[attr-defined]
        return view

    return mark


def only_reads(view: View) -> View:
    """Mark a view that takes a question by POST and orders nothing: no page of ours asks it, so it has no token."""
    view.piman_only_reads = True  # type: ignore[attr-defined]
    return view


class Gate:
    """What decides over the requests of one application.

    web      the addresses and names of the page
    port     for the cookie's name: browsers do not keep cookies of two ports apart
    peer_of  the address of the browser, from the WSGI environment
    """

    def __init__(self, access: Access, web: Web, port: int, peer_of: Callable[[Mapping[str, object]], str]) -> None:
        self.access, self.port, self._web, self.peer_of = access, port, web, peer_of
        name = socket.gethostname().lower()
        own = {"localhost", name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
        self._names = frozenset(own | set(web.names))

    @property
    def cookie(self) -> str:
        return f"piman_{self.port}"

    @property
    def is_open(self) -> bool:
        """Whether no password is asked: it is on this machine alone, and none was set."""
        return self._web.is_local and not self.access.has_password

    @property
    def is_shut(self) -> bool:
        """Whether nobody gets in: others could reach it, and no password is set."""
        return not self._web.is_local and not self.access.has_password

    def is_our_name(self, host: str) -> bool:
        """Whether `Host` is a name of ours, or an address: only a name can be pointed at us by others."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _port = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def caller(self, cookie: str, authorization: str) -> Caller | None:
        """Who asks; None: nobody we know."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self.access.caller_of_token(token.strip())
        if authorization:
            return None
        if self.is_open:
            return Caller("local", "admin")
        return self.access.caller_of_cookie(cookie, time.time())


def gate() -> Gate:
    found: Gate = current_app.extensions["piman_gate"]
    return found


def caller() -> Caller:
    """Who asks; only where the guard has let somebody in."""
    found: Caller = g.caller
    return found


def guard() -> Response | None:
    """Before each request."""
    doors = gate()
    if not doors.is_our_name(request.host):
        return refuse(
            403, f"nothing is served here under the name {request.host!r}; add it to `names` in `web:` of config.yaml"
        )
    if not doors.peer_of(request.environ):  # somebody on this machine, beside the TLS that is in front of us
        return refuse(403, "nothing is served here; ask the port of `ports.web`")
    cookie = request.cookies.get(doors.cookie, "")
    authorization = request.headers.get("Authorization", "")
    g.cookie = cookie if 20 <= len(cookie) <= 100 and cookie.isascii() else secrets.token_urlsafe(32)
    g.new_cookie = g.cookie != cookie
    g.caller = None if doors.is_shut else doors.caller(cookie, authorization)
    view = current_app.view_functions.get(request.endpoint or "")
    if request.method in UNSAFE and not authorization:
        problem = "" if getattr(view, "piman_only_reads", False) else _foreign(doors)
        if problem:
            return refuse(403, problem)
    role = getattr(view, "piman_role", "read")
    if not role or request.endpoint == "static" or view is None:
        return None
    return _admit(doors, role)


def _admit(doors: Gate, role: str) -> Response | None:
    if doors.is_shut:
        return refuse(403, "this page can be reached by others and has no password; set one with `piman password`")
    if g.caller is None:
        if request.method != "GET" or request.path in PROGRAM_PATHS or request.path.startswith(("/api/", "/grafana/")):
            response = refuse(401, "log in, or send a token: Authorization: Bearer piman_...")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return make_response(redirect(url_for("auth.login", next=request.path)))
    if not g.caller.may(role):
        return refuse(403, f"this needs the role {role}; {g.caller.who} has {g.caller.role}")
    return None


def _foreign(doors: Gate) -> str:
    """Why an order is not from our own page; "" where it is."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin") or request.headers.get("Referer") or ""
    if site not in ("same-origin", "none") or (origin and urlsplit(origin).netloc.lower() != request.host.lower()):
        return "this order came from another site's page"
    token = request.headers.get("X-CSRF-Token") or (request.form.get("csrf_token", "") if _is_form() else "")
    if not doors.access.is_csrf_token("" if g.new_cookie else g.cookie, token):
        return "csrf: this page is out of date; load it again"
    return ""


def _is_form() -> bool:
    return request.mimetype == "application/x-www-form-urlencoded"


def refuse(status: int, text: str) -> Response:
    """An error in the form of whoever asked: a sentence in JSON, or a page."""
    if (
        request.path.startswith("/api/")
        or request.path == "/events"
        or "text/html" not in request.headers.get("Accept", "")
    ):
        return make_response({"error": text}, status)
    return make_response(render_template("error.html", status=status, text=text), status)


def keep_cookie(response: Response) -> Response:
    """After each request: a browser that was shown a page gets a cookie for its orders to be known by."""
    if g.get("new_cookie") and response.mimetype == "text/html" and not g.get("cookie_set"):
        set_cookie(response, g.cookie)
    return response


def set_cookie(response: Response, value: str) -> None:
    g.cookie_set = True
    response.set_cookie(gate().cookie, value, httponly=True, samesite="Strict", secure=request.is_secure, path="/")


def page_context() -> dict[str, object]:
    """What every template may use."""
    who: Caller | None = g.get("caller")
    return {
        "title": current_app.extensions["piman"].place.title,
        "csrf_token": gate().access.csrf_token(g.cookie) if "cookie" in g else "",
        "user": who.who if who else "",
        "role": who.role if who else "",
        "can_log_out": who is not None and not gate().is_open,
    }


def _next_page(text: str) -> str:
    """Where to go after the log-in: a path of ours, nothing that a browser takes for another site."""
    safe = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if safe else "/"


@blueprint.get("/login")
@needs("")
def login() -> Response:
    """The page that asks for the password."""
    if gate().is_shut:
        return refuse(403, "this page can be reached by others and has no password; set one with `piman password`")
    return make_response(render_template("login.html", next=_next_page(request.args.get("next", "/")), problem=""))


@blueprint.post("/login")
@needs("")
def log_in() -> Response:
    """Check the password; a new cookie, so that one that was planted before is worth nothing."""
    if gate().is_shut:
        abort(403)
    target = _next_page(request.form.get("next", "/"))
    address = gate().peer_of(request.environ)
    try:
        cookie, who = gate().access.log_in(request.form.get("password", ""), address, time.time())
    except AccessError as error:
        current_app.extensions["piman"].audit(f"web ({address})", "log in", "", f"refused: {error}")
        status = 429 if "too many" in str(error) else 401
        return make_response(render_template("login.html", next=target, problem=str(error)), status)
    current_app.extensions["piman"].audit(who.who, "log in", "", "done")
    response = make_response(redirect(target, 303))
    set_cookie(response, cookie)
    return response


@blueprint.post("/logout")
@needs("")
def log_out() -> Response:
    gate().access.log_out(g.cookie)
    response = make_response(redirect(url_for("auth.login"), 303))
    set_cookie(response, secrets.token_urlsafe(32))
    return response
