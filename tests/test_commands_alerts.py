"""piman alerts: what is shown, acknowledged, silenced and tested, and how it fails."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from commands.session import Failure
from monitoring.alerts import Alert
from monitoring.store import Store
from piman import cli
from tests.alert_servers import Mailbox, Webhook
from utility.rules import BUILT_IN, AlertSeverity

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches: []
"""
NOW = time.time()
HOT = Alert(
    3, "temperature", "b8:27:eb:01:02:03", "pi3", AlertSeverity.WARNING, NOW - 600, NOW - 480, "it is at 83 °C", 83.0
)
DOWN = Alert(
    4,
    "switch_up",
    "switch:172.30.4.254",
    "switch upper",
    AlertSeverity.CRITICAL,
    NOW - 60,
    NOW - 9,
    "it is silent",
    0.0,
)
LATE = replace(HOT, id=5, rule="up", text="it is down", suppressed="switch upper is down")
PAST = replace(HOT, id=1, resolved_at=NOW - 300, ended="its rule is gone", told=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / "state" / "piman.db") as store:
        store.save_alerts([PAST, HOT, DOWN, LATE], [("slack", 3, False)], [], NOW)
        store.settle_notices([1], NOW, "hooks.slack.com answered 500")
    return tmp_path


@dataclass
class Done:
    output: str


def piman(*words: str, code: int = 0) -> Done:
    """Run it as main() does: the words of a failure, and its exit code."""
    result = CliRunner().invoke(cli, ["alerts", *words], standalone_mode=False)
    error = result.exception
    assert error is None or isinstance(error, click.ClickException), result.exc_info
    found = 0 if error is None else error.code if isinstance(error, Failure) else error.exit_code
    assert found == code, result.output
    return Done(result.output + (error.message if error else ""))


def test_what_is_wrong(folder: Path) -> None:
    lines = piman().output.splitlines()
    assert lines[0].split() == ["ID", "SEVERITY", "WHO", "WHAT", "FOR", "STATE"]
    assert [line.split()[0] for line in lines[1:4]] == ["3", "4", "5"]
    assert lines[1].startswith("3   warning   pi3           it is at 83 °C  10 ")
    assert lines[3].endswith("suppressed (switch upper is down)")
    assert lines[4:] == [
        "channel slack has not been told of everything: hooks.slack.com answered 500",
        "no server runs: this is what was known when it stopped",
    ]
    past = piman("--all").output.splitlines()[1]
    assert past.split()[0] == "1"
    assert past.endswith("  resolved (its rule is gone)")


def test_nothing_is_wrong(folder: Path) -> None:
    with Store(folder / "state" / "piman.db") as store:
        store.save_alerts([replace(each, resolved_at=NOW) for each in (HOT, DOWN, LATE)], [], [], NOW)
    assert piman().output.splitlines()[0] == "nothing is wrong"


def test_for_scripts(folder: Path) -> None:
    piman("silence", "lab-*", "--rule", "temp*", "--for", "1d", "--why", "the fan is away")
    found = json.loads(piman("--json").output)
    assert [(each["id"], each["state"], each["severity"]) for each in found["alerts"]] == [
        (3, "firing", "warning"), (4, "firing", "critical"), (5, "suppressed", "warning"),
    ]  # fmt: skip
    (silence,) = found["silences"]
    assert (silence["subject"], silence["rule"], silence["why"]) == ("lab-*", "temp*", "the fan is away")
    assert 86_000 < silence["until"] - NOW < 87_000
    assert found["waiting"] == [
        {"channel": "slack", "alert": 3, "event": "raised", "queued_at": NOW, "tries": 1,
         "error": "hooks.slack.com answered 500"},
    ]  # fmt: skip


def test_acknowledge_by_number_by_pi_and_by_switch(folder: Path) -> None:
    assert piman("ack", "3").output == "3: pi3: it is at 83 °C: acknowledged\n"
    assert [line.split(":")[0] for line in piman("ack", "PI3", "upper").output.splitlines()] == ["3", "5", "4"]
    with Store(folder / "state" / "piman.db") as store:
        assert store.acknowledged().keys() == {3, 4, 5}
    assert "acknowledged (by " in piman().output
    assert piman("ack", "--undo", "172.30.4.254").output == "4: switch upper: it is silent: open again\n"
    result = piman("ack", "pi9", code=1)
    assert "no alert 'pi9' is open" in result.output


def test_silences(folder: Path) -> None:
    assert piman("silence", "pi3").output.startswith("silence 1: pi3, rule *, until ")
    assert "silence 1: pi3, rule *" in piman().output
    assert piman("silence", "--end", "1").output == "silence 1 has ended\n"
    assert "no silence 1 is in force" in piman("silence", "--end", "1", code=1).output
    assert (
        "there is no rule 'temprature'; did you mean temperature?"
        in piman("silence", "pi3", "--rule", "temprature", code=1).output
    )
    assert "'soon' is no time" in piman("silence", "--for", "soon", code=2).output


def test_rules(folder: Path) -> None:
    (folder / "config.yaml").write_text(
        CONFIG
        + "monitoring: {rules: [{name: heat, when: temperature > 60, only: [lab-*]}, {name: agent, enabled: false}]}\n"
    )
    lines = piman("rules").output.splitlines()
    assert len(lines) == len(BUILT_IN) + 2
    assert lines[1].split()[:2] == ["up", "up"]
    assert next(line for line in lines if line.startswith("heat")).split()[-4:] == ["lab-*", "config.yaml", "line", "6"]
    found = {each["name"]: each for each in json.loads(piman("rules", "--json").output)}
    assert found["agent"]["enabled"] is False
    assert found["temperature"]["rule"] == "temperature > 80 for 2m clear < 75"


def test_the_test_of_the_channels(folder: Path) -> None:
    assert "config.yaml names no channels" in piman("test", code=1).output
    with Webhook([200, 500, 500, 500]) as webhook, Mailbox() as mailbox:
        (folder / "config.yaml").write_text(
            f"{CONFIG}monitoring: {{channels: ['{webhook.url}', {{type: email, to: [a@example.org], "
            f"server: 'localhost:{mailbox.port}'}}]}}\n"
        )
        assert piman("test").output == "slack: sent\nemail: sent\n"
        assert "a test of this channel" in webhook.taken[0]["text"]
        assert "a test of this channel" in mailbox.mails[0]["Subject"]
        result = piman("test", "slack", code=1)
        assert "answered 500" in result.output
        assert "hush" not in result.output
        assert "1 of 2 channels did not take it" in piman("test", code=3).output
        assert "there is no channel 'pigeon'; known: slack, email" in piman("test", "pigeon", code=1).output
