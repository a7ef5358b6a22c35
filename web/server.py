"""The service `web`: waitress in a thread, its sockets bound before. Flask is imported when the thread starts.

An open event stream holds one of waitress's threads, which wait without cost: there are more threads than streams
(web/live.py has the limit), so that pages are answered however many browsers watch.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from web.limits import MAX_STREAMS

if TYPE_CHECKING:
    from web.backend import Backend

log = logging.getLogger("piman.web")

PAGE_THREADS = 8
STREAM_BUFFER = 1 << 20  # bytes that may wait for a browser that does not read


class WebServer:
    """Serves the page of one backend. `bind` gives the sockets; `run` returns soon after `stop`."""

    name = "web"

    def __init__(self, addresses: Sequence[str], port: int, make_backend: Callable[[], Backend]) -> None:
        """Bind; OSError. `make_backend` is called in the service's own thread: it imports what is heavy."""
        self._make_backend = make_backend
        self._stopping = threading.Event()
        self._wake: Callable[[], object] = lambda: None
        self.sockets: list[socket.socket] = []
        try:
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                self.sockets.append(socket.create_server((address, port), family=family, backlog=128))
        except OSError:
            self._close()
            raise

    @property
    def port(self) -> int:
        """The port of the first socket: chosen by the system where 0 was asked for."""
        return int(self.sockets[0].getsockname()[1])

    def run(self) -> None:
        from waitress import wasyncore
        from waitress.server import create_server
        from waitress.trigger import trigger

        from web.app import create_app

        logging.getLogger("waitress").setLevel(logging.ERROR)  # "task queue depth" is not for an operator
        backend = self._make_backend()
        channels: dict[int, object] = {}
        waker = trigger(channels)
        self._wake = waker.pull_trigger
        server = create_server(
            create_app(backend, self.port),
            map=channels,
            sockets=self.sockets,
            threads=PAGE_THREADS + MAX_STREAMS,
            ident="",
            channel_request_lookahead=1,  # notices that a browser has gone while its stream is open
            outbuf_high_watermark=STREAM_BUFFER,
            max_request_header_size=65536,
            max_request_body_size=2 << 20,
            clear_untrusted_proxy_headers=True,
        )
        try:
            while not self._stopping.is_set():
                wasyncore.loop(timeout=30, use_poll=True, map=channels, count=1)
        finally:
            backend.close()  # ends the streams
            server.task_dispatcher.shutdown(timeout=0.5)
            wasyncore.close_all(channels, ignore_all=True)

    def stop(self) -> None:
        self._stopping.set()
        self._wake()

    def _close(self) -> None:
        for each in self.sockets:
            each.close()
