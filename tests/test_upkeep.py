"""The server's chores. The rest of them is seen in tests/test_piman.py and tests/lab, with a whole server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from monitoring.store import Store
from monitoring.upkeep import PowerIntents, PowerRestorer
from utility.config import load_config
from utility.power_cycle import PortResult

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches:
  - address: 127.0.4.254
    pi_addresses: []
"""


def test_a_port_left_off_is_tried_until_it_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml", environ={})
    tries: list[tuple[int, bool]] = []

    def restore_ports(_snmp: object, ports: list[int], intents: PowerIntents) -> list[PortResult]:
        answers = len(tries) == 1
        tries.append((ports[0], answers))
        if answers:
            intents.clear(ports[0])
        return [PortResult(ports[0], answers, "on" if answers else "no answer")]

    monkeypatch.setattr("monitoring.upkeep.restore_ports", restore_ports)
    with Store(tmp_path / "piman.db") as store:
        store.add_intent("127.0.4.254", 3, time.time() - 100)
        store.add_intent("127.0.4.254", 4, time.time())  # a power cycle that goes on
        store.add_intent("10.9.9.9", 5, time.time() - 100)  # no switch of ours
        restorer = PowerRestorer(config, store)
        for _ in range(3):
            restorer.restore()
        assert tries == [(3, False), (3, True)]
        assert {(intent.switch, intent.port) for intent in store.intents()} == {("127.0.4.254", 4), ("10.9.9.9", 5)}
