#!/usr/bin/env python3
"""The node agent: runs on the Pi, answers GET /events on port 3000 with its load as JSON. It knows nothing of Piman.

One file with no import but the standard library and psutil (Debian: python3-psutil), so that it can be copied to any
Pi. It only reads, takes no input but the path, and needs no privilege.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import psutil

PORT = 3000


def read_events() -> dict[str, float | int]:
    """Return the load now: time (Unix, seconds), cpu, memory and disk (of /) in percent, the number of processes.

    cpu_percent is the mean since the call before, and 0.0 in the first one.
    """
    return {
        "time": time.time(),
        "cpu_percent": psutil.cpu_percent(interval=None),
        "memory_percent": psutil.virtual_memory().percent,
        "disk_percent": psutil.disk_usage("/").percent,
        "num_pids": len(psutil.pids()),
    }


class EventsHandler(BaseHTTPRequestHandler):
    """Answers one connection: /events, or 404."""

    server_version = "piman-agent"
    sys_version = ""
    # A peer that connects and says nothing holds a thread no longer than this.
    timeout = 10

    def do_GET(self) -> None:
        if urlsplit(self.path).path.rstrip("/") != "/events":
            self._answer(404, {"error": "only /events is here"})
            return
        try:
            events = read_events()
        except (OSError, psutil.Error) as error:
            self._answer(503, {"error": f"cannot read the load: {error}"})
            return
        self._answer(200, events)

    def _answer(self, status: int, body: dict[str, float | int] | dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's own name
        """Say nothing: a poll every few seconds would fill the card."""


class EventsServer(ThreadingHTTPServer):
    """Listens at once; serve_forever() answers until shutdown()."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str = "0.0.0.0", port: int = PORT) -> None:
        psutil.cpu_percent(interval=None)  # so that the first answer has a span to measure
        super().__init__((address, port), EventsHandler)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """A peer that went away in the middle of an answer is no news."""


def main() -> int:
    try:
        server = EventsServer()
    except OSError as error:
        sys.stderr.write(f"cannot listen on port {PORT}: {error.strerror}\n")
        return 1
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
