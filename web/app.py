"""The Flask application: joins the routes, and puts on each answer what keeps a browser safe. No rule of the rack."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Flask, Response

from web import auth, live, metrics, pages
from web.api import ROUTES
from web.backend import Backend
from web.limits import MAX_BODY
from web.routes import answer_errors, register

# Scripts and styles come from static/ alone: text that somebody smuggled into a page stays text.
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def remote_address(environ: Mapping[str, object]) -> str:
    """The browser's address, where nothing is in between."""
    return str(environ.get("REMOTE_ADDR", ""))


def create_app(
    backend: Backend, port: int = 5000, peer_of: Callable[[Mapping[str, object]], str] = remote_address
) -> Flask:
    """The application over one rack. `port` is ours; `peer_of` tells a browser's address from the WSGI environment."""
    app = Flask("web", root_path=str(backend.web_folder), static_folder="static", template_folder="templates")
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, MAX_FORM_MEMORY_SIZE=MAX_BODY, MAX_FORM_PARTS=1000)
    app.url_map.merge_slashes = False
    app.extensions["piman"] = backend
    app.extensions["piman_gate"] = auth.Gate(backend.access, backend.place.web, port, peer_of)
    for blueprint in (auth.blueprint, pages.blueprint, live.blueprint, metrics.blueprint):
        app.register_blueprint(blueprint)
    register(app, backend, ROUTES)
    answer_errors(app)
    app.before_request(auth.guard)
    app.context_processor(auth.page_context)

    @app.after_request
    def protect(response: Response) -> Response:
        response = auth.keep_cookie(response)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if not response.cache_control.max_age:
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return app
