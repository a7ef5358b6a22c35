"""What happens inside real machines arrives at a real webhook and mail server, once, and that it is over, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from lab.rack import Rack, prepare_agent
from monitoring.store import Store
from tests.alert_servers import Mailbox, Webhook
from tests.lab.agent_rig import HEAT, SUPPLY, shell, write
from tests.lab.rig import Manager, managed, until

MONITORING = """
monitoring:
  interval: 2
  timeout: 2
  rules:
    - load1 > 3 for 2s clear < 3
    - disk_percent > 90 for 2s clear < 85
    - num_pids > 250 for 2s clear < 200
    - temperature > 80 for 2s clear < 75
    - under_voltage == 1 for 2s
    - {name: under_voltage_seen, enabled: false}
    - {name: clock_offset, enabled: false}
    - up == 0 for 5s
  channels:
    - {type: webhook, url: "%s"}
    - {type: email, to: [ops@example.org], server: "localhost:%d", severity: critical}
  healing: {after: 60s, cooldown: 60s}
"""
LOAD = "for i in 1 2 3 4 5 6; do (while :; do :; done) >/dev/null 2>&1 & echo $! >>/run/load; done"
IDLE = "kill $(cat /run/load)"
FORK = "for i in $(seq 250); do sleep 9999 >/dev/null 2>&1 & done"
FILL = "dd if=/dev/zero of=/fill bs=1M 2>/dev/null; sync"


def arrivals(webhook: Webhook) -> Callable[[], Counter[tuple[str, str, str]]]:
    """Counts what arrived: (name, rule, raised or over)."""

    def arrived() -> Counter[tuple[str, str, str]]:
        alerts = [alert for body in webhook.taken for alert in body["alerts"]]
        return Counter((each["name"], each["rule"], each["event"]) for each in alerts)

    return arrived


def has_agents(manager: Manager, count: int) -> bool:
    path = manager.rack.directory / "state" / "piman.db"
    with Store(path, read_only=True) as store:
        return sum(not each.words.get("error", "-") for each in store.latest_samples().values()) == count


def test_trouble_in_real_machines(tmp_path: Path) -> None:
    prepare_agent()
    rack = Rack(tmp_path, pis=2, kind="qemu", agent=True)
    with Webhook() as webhook, Mailbox() as mailbox, managed(rack) as manager:
        manager.end()
        rack.config.write_text(rack.config.read_text() + MONITORING % (webhook.url, mailbox.port))
        manager.start()
        rack.start()
        first, second = rack.pis
        address = first.address
        assert address is not None
        manager.wait_for("up", "pi1", "pi2", timeout=300)
        until(lambda: has_agents(manager, 2), 120, "both agents answer")
        arrived = arrivals(webhook)
        assert not arrived()

        # Heat and low voltage, which QEMU has not, in the files from which they are read; the rest for real.
        write(address, HEAT, "86000")
        write(address, SUPPLY, "50005")
        for command in (FILL, FORK, LOAD):
            shell(address, command, 120)
        inside = {"load1", "disk_percent", "num_pids", "temperature", "under_voltage"}
        until(lambda: {("pi1", rule, "raised") for rule in inside} <= arrived().keys(), 120, "five alerts")
        write(address, HEAT, "55000")
        write(address, SUPPLY, "50000")
        for command in (IDLE, "killall sleep", "rm /fill"):
            shell(address, command, 120)

        # A plug is pulled, and put in again.
        second.power_off()
        until(lambda: ("pi2", "up", "raised") in arrived(), 120, "the alert of a Pi without power")
        second.power_on()
        until(lambda: ("pi2", "up", "over") in arrived(), 240, "it is over")
        until(lambda: {("pi1", rule, "over") for rule in inside} <= arrived().keys(), 240, "all is over")

        # A kernel that hangs is power-cycled.
        shell(address, "(sleep 1; echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
        until(lambda: ("pi1", "up", "raised") in arrived(), 120, "the alert of a Pi that hangs")
        until(lambda: ("pi1", "up", "over") in arrived(), 300, "it was healed")
        healed = [line for line in manager.piman("events", "pi1").stdout.splitlines() if "healing: " in line]
        assert len(healed) == 1, healed
        assert "healing: power-cycle: dead for 1m" in healed[0]

        ups = {(name, "up", event) for name in ("pi1", "pi2") for event in ("raised", "over")}
        assert arrived() == Counter(ups | {("pi1", rule, event) for rule in inside for event in ("raised", "over")})
        assert len(mailbox.mails) == 4
        assert manager.piman("alerts").stdout.splitlines() == ["nothing is wrong"]
