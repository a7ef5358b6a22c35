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
    - load1 > 2 for 2s clear < 2
    - cpu_percent > 90 for 4s clear < 60
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


def mailed(mailbox: Mailbox) -> Counter[str]:
    """The lines of all mails that came."""
    return Counter(line[2:] for mail in mailbox.mails for line in mail.get_content().splitlines())  # type: ignore[attr-defined]


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
        hung, busy = first.address, second.address
        assert hung is not None
        assert busy is not None
        manager.wait_for("up", "pi1", "pi2", timeout=300)
        until(lambda: has_agents(manager, 2), 120, "both agents answer")
        arrived = arrivals(webhook)
        assert not arrived()

        # A kernel hangs: it is to be power-cycled when it has been dead for a minute. Meanwhile, in the other Pi: heat
        # and low voltage, which QEMU has not, in the files from which they are read; the rest for real.
        shell(hung, "(sleep 1; echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
        write(busy, HEAT, "84000")
        write(busy, SUPPLY, "10001")
        for command in (FILL, FORK, LOAD):
            shell(busy, command, 120)
        inside = {"load1", "cpu_percent", "disk_percent", "num_pids", "temperature", "under_voltage"}
        raised = {("pi2", rule, "raised") for rule in inside} | {("pi1", "up", "raised")}
        until(lambda: raised <= arrived().keys(), 120, "seven alerts")
        write(busy, HEAT, "55000")
        write(busy, SUPPLY, "10000")
        for command in (IDLE, "killall sleep", "rm /fill"):
            shell(busy, command, 120)
        until(lambda: {("pi2", rule, "over") for rule in inside} <= arrived().keys(), 240, "what was undone is over")

        # A plug is pulled, and put in again.
        second.power_off()
        until(lambda: ("pi2", "up", "raised") in arrived(), 120, "the alert of a Pi without power")
        second.power_on()
        until(lambda: {("pi1", "up", "over"), ("pi2", "up", "over")} <= arrived().keys(), 400, "both are well again")

        steps = [line for line in manager.piman("events", "pi1").stdout.splitlines() if "healing: power-cycle" in line]
        assert len(steps) == 1, steps
        assert "dead for 1m" in steps[0]
        everything = raised | {("pi2", "up", "raised")}
        assert arrived() == Counter(everything | {(name, rule, "over") for name, rule, _event in everything})
        # Mail is a channel of its own, with its own pause between two messages.
        until(lambda: sum(mailed(mailbox).values()) >= 4, 90, "four lines by mail")
        assert sum(mailed(mailbox).values()) == 4
        assert {line.partition(": it is down")[0] for line in mailed(mailbox)} == {
            f"{word}: {name}" for word in ("critical", "over") for name in ("pi1", "pi2")
        }
        assert manager.piman("alerts").stdout.splitlines() == ["nothing is wrong"]
