"""JSON over HTTP or HTTPS to one host, for switches that are asked this way. Knows no switch.

A certificate that nobody vouches for is what such hosts have. It is taken where its fingerprint is the one that is
expected, and this is looked at before a word is sent.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

LONGEST = 16 << 20  # bytes of an answer
TIMEOUT = 10.0


class RestError(Exception):
    """The host did not answer as it should; `str()` says what to do. `status` is of HTTP, 0: no answer of that kind."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class RestClient:
    """One host. `headers` go with every request; cookies are kept. For one thread."""

    def __init__(
        self, url: str, fingerprint: str = "", headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._secure = parts.scheme == "https"
        self._fingerprint = fingerprint
        self._timeout = timeout
        self.headers = {"Accept": "application/json", **(headers or {})}
        self._cookies: dict[str, str] = {}
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def ask(self, method: str, path: str, body: object = None) -> object:
        """The answer's JSON, None where it is empty; RestError, also for a status of 300 and above."""
        data = None if body is None else json.dumps(body).encode()
        headers = dict(self.headers)
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        try:
            connection = self._connect()
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read(LONGEST)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RestError(f"cannot be asked: {getattr(error, 'strerror', None) or error or 'it hung up'}") from error
        self._keep(response)
        if response.will_close or response.length:
            self.close()
        return _decoded(response.status, text)

    def _connect(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if not self._secure:
                self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
                return self._connection
            context = ssl.create_default_context()
            if self._fingerprint:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the fingerprint says more
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
            try:
                connection.connect()
            except ssl.SSLCertVerificationError as error:
                raise RestError(self._advice(error.verify_message)) from error
            if self._fingerprint and _digest(connection.sock) != self._fingerprint:
                found = _digest(connection.sock)
                connection.close()
                raise RestError(f"its certificate is not the one of `fingerprint:` but {found}; is somebody between?")
            self._connection = connection
        return self._connection

    def _advice(self, why: str) -> str:
        """What to write into config.yaml, with the fingerprint of what is there."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((self._host, self._port), self._timeout) as plain,
            context.wrap_socket(plain) as secure,
        ):
            found = _digest(secure)
        return f"its certificate is not vouched for ({why}); if it is really its own, add `fingerprint: {found}`"

    def _keep(self, response: http.client.HTTPResponse) -> None:
        for given in response.headers.get_all("Set-Cookie") or ():
            name, equals, value = given.partition(";")[0].partition("=")
            if equals:
                self._cookies[name.strip()] = value.strip()
        token = response.headers.get("X-CSRF-Token")
        if token:
            self.headers["X-CSRF-Token"] = token


def _digest(sock: socket.socket) -> str:
    assert isinstance(sock, ssl.SSLSocket)
    return hashlib.sha256(sock.getpeercert(binary_form=True) or b"").hexdigest()


def _decoded(status: int, text: bytes) -> object:
    try:
        answer: object = json.loads(text) if text.strip() else None
    except ValueError:
        answer = None
        if status < 300:
            raise RestError("answers, but not in JSON: is it what `driver:` says?", status) from None
    if status in {401, 403}:
        raise RestError("does not let us in: are user and password right, and may that user change ports?", status)
    if status >= 300:
        raise RestError(f"answers {status}{_words(answer)}", status)
    return answer


def _words(answer: object) -> str:
    """What it says of an error, in the words that such hosts use."""
    if isinstance(answer, dict):
        meta = answer.get("meta")
        found = [answer.get("detail"), answer.get("message"), meta.get("msg") if isinstance(meta, dict) else None]
        said = next((each for each in found if isinstance(each, str) and each), "")
        plain = "".join(each if each.isprintable() else "?" for each in said)
        return f": {plain[:120]}" if plain else ""
    return ""
