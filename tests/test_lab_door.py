"""The door into the lab: what goes in comes out, both ways, and the ends of connections too."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from lab.door import DOOR, Door, inherited_door, open_door


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers each connection, at its end, with all it got, backwards."""

    def serve() -> None:
        while True:
            try:
                connection, _address = server.accept()
            except OSError:
                return
            with connection:
                got = b""
                while piece := connection.recv(65536):
                    got += piece
                connection.sendall(got[::-1])

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def ask(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while piece := client.recv(65536):
            got += piece
        return got


def test_what_goes_in_comes_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DOOR, raising=False)
    assert inherited_door() is None
    outside = open_door(0)
    assert os.get_inheritable(outside.fileno())
    monkeypatch.setenv(DOOR, str(os.dup(outside.fileno())))
    inside = inherited_door()
    assert inside is not None
    assert DOOR not in os.environ
    door = Door(inside, port)
    assert door.outer_port == outside.getsockname()[1]
    assert ask(door.outer_port, b"abc") == b"cba"
    text = bytes(range(256)) * 5000
    assert ask(door.outer_port, text) == text[::-1]
    door.close()
    outside.close()
    with pytest.raises(OSError, match="refused"):
        ask(door.outer_port, b"")


def test_a_taken_port_is_replaced_and_a_dead_page_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DOOR, "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        outside = open_door(number)
        assert outside.getsockname()[1] != number
    door = Door(outside, number)  # nobody listens there any more
    assert ask(door.outer_port, b"") == b""
    door.close()


def test_a_descriptor_that_is_none_is_no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("x", "99999"):
        monkeypatch.setenv(DOOR, number)
        assert inherited_door() is None
