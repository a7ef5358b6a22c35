"""Stand-ins for what is asked over HTTPS: a MikroTik switch and a UniFi controller, as far as Piman asks them.

Not the real ones, which nobody may give away: written from their documentation. `StandIn` is an HTTP server on a free
port of 127.0.0.1 whose answers a test gives; it says `stand-in` in its Server header.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = tuple[int, object]  # status, JSON; bytes go as they are
Answering = Callable[[str, str, object, dict[str, str]], Answer]  # method, path, JSON, headers


def make_certificate(folder: Path) -> tuple[Path, str]:
    """A file with a key and a certificate that nobody vouches for, and the SHA-256 of that."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "stand-in.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path, hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class StandIn:
    """`with StandIn(answer) as it: ...it.url`; `it.asked` is what came: method and path."""

    def __init__(
        self, answer: Answering, certificate: Path | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "stand-in", ""

            def _do(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((self.command, self.path))
                status, body = answer(self.command, self.path, json.loads(data or b"null"), dict(self.headers))
                text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = _do  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), name="stand-in")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
