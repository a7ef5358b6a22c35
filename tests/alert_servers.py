"""Where alerts arrive in the tests: a webhook and a mail server, both real, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword


def wait_for(what: Callable[[], object], seconds: float = 20.0) -> None:
    """Return as soon as `what` is so; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def certificate(folder: Path) -> tuple[Path, SSLContext]:
    """A certificate for localhost, made for this test, and a server's context with it."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*made, *names, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


@dataclass
class Webhook:
    """Answers POSTs as `answers` says, one after the other, then with 200; keeps the bodies of those it took.

    An answer is a status, "hang" (never one), "drip" (a byte now and then), or a status with headers and a body.
    """

    answers: list[int | str | tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    tls: SSLContext | None = None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)  # path, headers, JSON
    taken: list[Any] = field(default_factory=list)

    def __enter__(self) -> Webhook:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.serve(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_args: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://localhost:{self._server.server_address[1]}/hooks/hush-hush"

    @property
    def texts(self) -> list[str]:
        """What was taken, as text."""
        return [each["text"] for each in self.taken]

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append((handler.path, dict(handler.headers), body))
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "hang":
            self.ending.wait()
            return
        if answer == "drip":
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            while not self.ending.wait(0.1):
                handler.wfile.write(b"x")
            return
        status, headers, text = answer if isinstance(answer, tuple) else (int(answer), {}, b"")
        if 200 <= status < 300:
            self.taken.append(body)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text)


class Mailbox:
    """A mail server that takes everything, unless `refuse` says what it answers; `mails` are what it has."""

    def __init__(self, tls: SSLContext | None = None, password: str = "") -> None:
        self.mails: list[Message] = []
        self.envelopes: list[Envelope] = []
        self.refuse: list[str] = []
        self._password = password
        with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot choose one
            self.port: int = free.getsockname()[1]
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            tls_context=tls,
            require_starttls=tls is not None,
            auth_required=bool(password),
            authenticator=self._authenticate if password else None,
        )

    def _authenticate(
        self, _server: object, _session: object, _envelope: object, mechanism: str, data: object
    ) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.password == self._password.encode()
        return AuthResult(success=good, handled=False)

    async def handle_RCPT(  # noqa: N802
        self, _server: object, _session: object, envelope: Envelope, address: str, _options: object
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, _server: object, _session: object, envelope: Envelope) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse.pop(0)
        assert isinstance(envelope.content, bytes)
        self.envelopes.append(envelope)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 taken"

    def __enter__(self) -> Mailbox:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
