"""TLS before waitress, which speaks none: a relay of connections in an event loop, and a certificate of our own.

The relay connects to a port of loopback where waitress listens, and remembers by the local port whose browser it is; a
connection there that is none of the relay's is answered with no page (web/auth.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from utility.config import Web
from web.limits import HANDSHAKE_SECONDS, MAX_CONNECTIONS

log = logging.getLogger("piman.web")
CHUNK = 65536
DAYS = 3650


class TlsError(Exception):
    """There is no certificate to be had; a sentence."""


def server_context(state_dir: Path, web: Web) -> ssl.SSLContext:
    """The certificate that config.yaml names, or one of our own; TlsError."""
    certificate, key = web.certificate, web.key
    if certificate is None or key is None:
        certificate, key = state_dir / "web_certificate.pem", state_dir / "web_key.pem"
        if not (certificate.exists() and key.exists()):
            make_certificate(certificate, key, names_of(web))
            log.info(
                "the web page has a certificate of its own, %s; browsers will ask whether to trust it", certificate
            )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{certificate} and {key} cannot be used: {error}") from None
    return context


def names_of(web: Web) -> list[str]:
    """What the certificate is for, as openssl wants it."""
    host = socket.gethostname()
    names = dict.fromkeys(["localhost", host, f"{host.partition('.')[0]}.local", *web.names])
    addresses = dict.fromkeys(["127.0.0.1", *(each for each in web.addresses if each not in ("0.0.0.0", "::"))])
    return [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]


def make_certificate(certificate: Path, key: Path, names: Sequence[str]) -> None:
    """A certificate that signs itself, by the `openssl` command; TlsError where there is none."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise TlsError("TLS needs the command openssl (`apt install openssl`), or `certificate` and `key` in `web:`")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    new_key, new_certificate = key.with_suffix(".new"), certificate.with_suffix(".new")
    os.close(os.open(new_key, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", str(DAYS), "-subj", "/CN=Piman", "-addext", f"subjectAltName={','.join(names)}",
        "-keyout", str(new_key), "-out", str(new_certificate),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise TlsError(f"openssl made no certificate: {done.stderr.strip()[-300:]}")
    new_key.chmod(0o600)
    new_key.replace(key)
    new_certificate.replace(certificate)


class Relay:
    """Takes TLS connections on the sockets, and passes what is in them to and from a port of loopback.

    `_peers` is changed by the event loop's thread alone; others read single entries.
    """

    def __init__(self, sockets: Sequence[socket.socket], port: int, context: ssl.SSLContext) -> None:
        self._sockets, self._port, self._context = sockets, port, context
        self._peers: dict[int, str] = {}
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()

    def peer_of(self, port: int) -> str:
        """The address of the browser whose connection comes from that local port; "" where it is none of ours."""
        return self._peers.get(port, "")

    def run(self) -> None:
        """Until `stop`, in a thread of its own."""
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self._loop.close()

    def stop(self) -> None:
        """Any thread, any number of times."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def _run(self) -> None:
        self._loop.set_exception_handler(lambda _loop, context: log.debug("%s", context.get("message")))
        servers = [
            await asyncio.start_server(
                self._serve, sock=each.dup(), ssl=self._context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            for each in self._sockets
        ]
        await self._stopping.wait()
        for server in servers:
            server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._peers) >= MAX_CONNECTIONS:
            writer.close()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        port = inner_writer.get_extra_info("sockname")[1]
        self._peers[port] = str(writer.get_extra_info("peername")[0])
        ways = [
            asyncio.ensure_future(_pass(reader, inner_writer)),
            asyncio.ensure_future(_pass(inner_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for each in (inner_writer, writer):
                each.close()
            del self._peers[port]


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes from one to the other, no faster than the other takes them, until either has gone."""
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
