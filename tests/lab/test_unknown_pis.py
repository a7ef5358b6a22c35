"""Pis that hosts.csv does not know, at a whole server: let in from a pool, or held until a human adopts them."""

from __future__ import annotations

import time
from pathlib import Path

from lab.rack import Rack
from tests.lab.rig import Manager, managed, until


def configure(rack: Rack, text: str) -> None:
    rack.config.write_text(rack.config.read_text() + text)


def rack_of_strangers(directory: Path) -> Rack:
    return Rack(directory, pis=2, kind="light", model="4", scale=0.2, known=False)


def test_the_pool_takes_in_whoever_asks(tmp_path: Path) -> None:
    with rack_of_strangers(tmp_path) as rack:
        configure(rack, "unknown_pis: pool\npool: 172.30.4.200-172.30.4.201\n")
        manager = Manager(rack)
        manager.start()
        try:
            rack.start()
            manager.wait_for("up", "pi-000001", "pi-000002")
            rows = manager.piman("status").stdout.splitlines()
            assert {row.split()[2] for row in rows[1:]} == {"172.30.4.200", "172.30.4.201"}
            before = {name: row["address"] for name, row in manager.status().items()}
            manager.end()
            manager.start()
            began = time.time()
            done = manager.piman("restart", "pi-000001")  # no port in config.yaml: the switch is asked
            assert done.returncode == 0, done.stderr
            until(lambda: float(str(manager.status()["pi-000001"]["since"] or 0)) > began, 30, "a new boot")
            manager.wait_for("up", "pi-000001", "pi-000002")
            assert {name: row["address"] for name, row in manager.status().items()} == before
        finally:
            manager.end()


def test_a_pi_waits_for_approval_and_is_adopted(tmp_path: Path) -> None:
    rack = rack_of_strangers(tmp_path)
    with managed(rack) as manager:
        manager.end()
        configure(rack, "unknown_pis: approve\n")
        manager.start()
        rack.start()
        one, two = (pi.mac for pi in rack.pis)
        until(lambda: {one, two} <= manager.status().keys(), 30, "both have asked")
        text = manager.piman("status").stdout
        assert f"waiting for approval: {one}" in text
        assert f"adopt with: piman adopt {one}" in text
        assert "Pi 4" in text
        done = manager.piman("adopt", one, "--name", "first")
        assert done.returncode == 0, done.stderr
        manager.wait_for("up", "first")
        assert manager.status()[two]["stage"] is None  # nobody has let it in
        assert f"waiting for approval: {two}" in manager.piman("status").stdout
        assert manager.piman("adopt", "--all").returncode == 0
        manager.wait_for("up", "pi-000002")
        assert "waiting" not in manager.piman("status").stdout
