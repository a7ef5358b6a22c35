"""The server is there within a second and gone within a second, whatever it is doing."""

from __future__ import annotations

import logging
import signal
import socket
import statistics
from pathlib import Path

from lab.light import Pace
from lab.rack import MANAGER, Rack
from tests.lab.rig import managed, until


def test_ready_and_gone_within_a_second_with_work_in_flight(tmp_path: Path) -> None:
    rack = Rack(tmp_path, pis=2, kind="light", model="4", scale=0.1, image_bytes=8_000_000, pace=Pace(write=200_000))
    starts, ends = [], []
    with managed(rack) as manager:
        rack.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            until(lambda: "image" in {row["stage"] for row in manager.status().values()}, 90, "an install in flight")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(b"\0\1kernel8.img\0octet\0", (str(MANAGER), 69))
                assert client.recv(600)[:4] == b"\0\3\0\1"  # a transfer in flight: its first block waits for our ACK
                ends.append(manager.end(number))
            starts.append(manager.start())
    # The median of three: another process may hold the processor for once.
    logging.getLogger("tests").info("ready after %s, gone after %s", starts, ends)
    assert statistics.median(starts) < 1.0, starts
    assert statistics.median(ends) < 1.0, ends
