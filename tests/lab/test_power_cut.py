"""A Pi loses power at random moments of an install: it ends installed."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from lab.light import Pace
from lab.rack import Rack
from tests.lab.rig import REPEAT, managed


@pytest.mark.parametrize(("kind", "cuts", "longest"), [("light", 10 * REPEAT, 4.0), ("qemu", 3 * REPEAT, 6.5)])
def test_power_cut_during_an_install(tmp_path: Path, kind: str, cuts: int, longest: float) -> None:
    chance = random.Random(2)
    rack = Rack(tmp_path, pis=1, kind=kind, model="4", scale=0.1, image_bytes=3_000_000, pace=Pace(write=1_500_000))
    (pi,) = rack.pis
    with managed(rack) as manager:
        rack.start()
        manager.wait_for("up")
        for _ in range(cuts):
            assert manager.piman("reinstall", "-y", "pi1").returncode == 0
            time.sleep(chance.uniform(0.5, longest))
            pi.power_off()
            time.sleep(0.2)
            pi.power_on()
            manager.wait_for("up")
            last = manager.piman("events", "pi1", "-n", "1000").stdout
            assert last.rindex(" installed ") > last.rindex("reinstall ordered"), last
