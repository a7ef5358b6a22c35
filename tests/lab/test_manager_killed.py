"""The manager is killed at random moments of an install and started again: the Pi ends installed, no file is torn."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from lab.light import Pace
from lab.rack import Rack
from tests.lab.rig import REPEAT, managed
from utility.config import load_config
from utility.hosts import Hosts

KILLS = 20 * REPEAT


def test_killed_twenty_times_during_an_install(tmp_path: Path) -> None:
    chance = random.Random(1)
    pace = Pace(kernel=0.3, format=0.4, write=3e6, boot=0.2)
    rack = Rack(tmp_path, pis=1, kind="light", model="4", scale=0.1, image_bytes=3_000_000, pace=pace)
    (pi,) = rack.pis
    stages = set()
    with managed(rack) as manager:
        rack.start()
        manager.wait_for("up")
        config = load_config(rack.config)
        for _ in range(KILLS):
            before = pi.card()
            assert manager.piman("reinstall", "-y", "pi1").returncode == 0
            time.sleep(chance.uniform(0.0, 3.0))
            stages.add(manager.stage("pi1"))
            manager.end(signal.SIGKILL)
            hosts = Hosts.open(rack.hosts, config, write=False)
            assert [(host.mac, host.name) for host in hosts.all()] == [(pi.mac, "pi1")]
            manager.start()
            manager.wait_for("up")
            # A fresh install, carried out for this order: its number is in the card's marker file.
            assert pi.card().image.startswith("rootfs-")
            assert pi.card().order != before.order
    assert len(stages) >= 3, stages
