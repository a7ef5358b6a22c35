"""The service `web`: waitress in a thread, its sockets bound before. Flask is imported when the thread starts.

An open event stream holds one of waitress's threads, which wait without cost: there are more threads than streams
(web/limits.py), so that pages are answered however many browsers watch. With TLS, waitress is behind web/tls.py.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from utility.config import Web
from web.limits import MAX_CONNECTIONS, MAX_STREAMS, PAGE_THREADS, STREAM_BUFFER

if TYPE_CHECKING:
    from web.backend import Backend
    from web.tls import Relay

log = logging.getLogger("piman.web")


class WebServer:
    """Serves the page of one backend. The constructor binds; `run` returns soon after `stop`.

    web           where it is, and how it is protected
    state_dir     for a certificate of our own
    make_backend  called in the service's thread: it imports what is heavy
    """

    name = "web"

    def __init__(self, web: Web, port: int, state_dir: Path, make_backend: Callable[[], Backend]) -> None:
        self._web, self._state_dir, self._make_backend = web, state_dir, make_backend
        self._stopping = threading.Event()
        self._wake: Callable[[], object] = lambda: None
        self.sockets: list[socket.socket] = []
        try:
            for address in web.addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                self.sockets.append(socket.create_server((address, port), family=family, backlog=128))
        except OSError:
            self._close()
            raise

    @property
    def port(self) -> int:
        """The port of the first socket: chosen by the system where 0 was asked for."""
        return int(self.sockets[0].getsockname()[1])

    @property
    def has_tls(self) -> bool:
        return self._web.tls == "on" or (self._web.tls == "auto" and not self._web.is_local)

    def run(self) -> None:
        backend = self._make_backend()
        try:
            if self.has_tls:
                self._run_behind_tls(backend)
            else:
                self._serve(backend, self.sockets, None)
        finally:
            backend.close()
            self._close()

    def _run_behind_tls(self, backend: Backend) -> None:
        from web.tls import Relay, server_context

        context = server_context(self._state_dir, self._web)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as inner:
            relay = Relay(self.sockets, inner.getsockname()[1], context)
            thread = threading.Thread(target=relay.run, name="web-tls", daemon=True)
            thread.start()
            try:
                self._serve(backend, [inner], relay)
            finally:
                relay.stop()
                thread.join(0.5)

    def _serve(self, backend: Backend, sockets: list[socket.socket], relay: Relay | None) -> None:
        from waitress import wasyncore
        from waitress.server import create_server
        from waitress.trigger import trigger

        from web.app import create_app, remote_address

        def behind_relay(environ: Mapping[str, object]) -> str:
            assert relay is not None
            return relay.peer_of(int(str(environ.get("REMOTE_PORT", 0))))

        logging.getLogger("waitress").setLevel(logging.ERROR)  # "task queue depth" is not for an operator
        channels: dict[int, object] = {}
        waker = trigger(channels)
        self._wake = waker.pull_trigger
        server = create_server(
            create_app(backend, self.port, remote_address if relay is None else behind_relay),
            map=channels,
            sockets=sockets,
            threads=PAGE_THREADS + MAX_STREAMS,
            ident="",
            channel_request_lookahead=1,  # notices that a browser has gone while its stream is open
            outbuf_high_watermark=STREAM_BUFFER,
            max_request_header_size=65536,
            max_request_body_size=64 << 20,
            connection_limit=MAX_CONNECTIONS,
            clear_untrusted_proxy_headers=True,
            url_scheme="http" if relay is None else "https",
        )
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=30, use_poll=True, map=channels, count=1)
        finally:
            self._wake = lambda: None
            backend.close()  # ends the streams, so that their threads do
            server.task_dispatcher.shutdown(timeout=0.5)
            wasyncore.close_all(channels, ignore_all=True)

    def stop(self) -> None:
        self._stopping.set()
        self._wake()

    def _close(self) -> None:
        for each in self.sockets:
            each.close()
