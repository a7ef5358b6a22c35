"""A door into the lab's private network: a port of this machine whose connections end at a port in there.

A socket belongs for life to the network in which it was made, so the one that listens is made outside and inherited.
Knows no protocol.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

DOOR = "PIMAN_LAB_DOOR"  # the environment's word to the process inside: the listening socket's descriptor
_PIECE = 65536


def open_door(port: int) -> socket.socket:
    """Listen on this machine alone, at `port` or, where that is taken, at any other; processes we start inherit it."""
    try:
        door = socket.create_server(("127.0.0.1", port))
    except OSError:
        door = socket.create_server(("127.0.0.1", 0))
    door.set_inheritable(True)
    os.environ[DOOR] = str(door.fileno())
    return door


def inherited_door() -> socket.socket | None:
    """The socket that `open_door` made outside; None where there was none."""
    number = os.environ.pop(DOOR, "")
    if not number.isdecimal():
        return None
    try:
        door = socket.socket(fileno=int(number))
    except OSError:
        return None
    door.set_inheritable(False)
    return door


class Door:
    """Carries each connection to `port` of this network, in threads of their own, until `close`."""

    def __init__(self, door: socket.socket, port: int) -> None:
        self._door, self._port = door, port
        self.outer_port = int(door.getsockname()[1])
        threading.Thread(target=self._accept, name="door", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                outer, _address = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(outer,), name="door", daemon=True).start()

    def _join(self, outer: socket.socket) -> None:
        with outer, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5) as inner:
            inner.settimeout(None)
            back = threading.Thread(target=carry, args=(inner, outer), name="door", daemon=True)
            back.start()
            carry(outer, inner)
            back.join()


def carry(source: socket.socket, target: socket.socket) -> None:
    """Hand on all that comes, and then that it has ended."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for end, way in ((source, socket.SHUT_RD), (target, socket.SHUT_WR)):
        with contextlib.suppress(OSError):
            end.shutdown(way)
