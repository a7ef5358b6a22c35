"""Asks the Pis whether they are there. Knows no stage and no store."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time
from collections.abc import Iterable
from ipaddress import IPv4Address


def answering(addresses: Iterable[IPv4Address], port: int = 22, timeout: float = 0.5) -> set[IPv4Address]:
    """Which of these hosts answer a TCP connection, all asked at once, within `timeout` seconds.

    A refusal is an answer too: it comes from a running kernel with that address (RFC 9293, 3.10.7.1). So it does not
    matter what runs on the port, and no privilege is needed, as a ping would.
    """
    alive: set[IPv4Address] = set()
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for address in addresses:
            asked = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            asked.setblocking(False)
            code = asked.connect_ex((str(address), port))
            if code == errno.EINPROGRESS:
                waiting.register(asked, selectors.EVENT_WRITE, address)
            elif code in (0, errno.ECONNREFUSED):
                alive.add(address)
        while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in waiting.select(left):
                waiting.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                    alive.add(key.data)
    return alive
