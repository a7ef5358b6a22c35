"""The Debian of create_rootfs.sh in a QEMU Pi, with systemd, ssh and agent as on a real board; an image of its card.

No part of the gate, as it takes ten minutes: `tests/run.sh --debian` builds that Debian, then runs this.
"""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.rack import MANAGER, Rack, cache_directory
from monitoring.monitoring_server import VERSION
from tests.lab.agent_rig import events
from tests.lab.rig import ROOT, Manager, managed, until

KEPT = cache_directory() / "debian"
KEY, ROOTFS = KEPT / "key", KEPT / "rootfs.tgz"
CARD_BYTES = 1 << 31
INSTALL_TIME = 1200  # an emulated processor unpacks 70 MB in three minutes, beside other work in more
START_TIME = 180
UNIT = "/etc/systemd/system/piman-agent.service"


def prepare() -> None:
    """Build it, with the machine's own network. The second time is quick."""
    KEPT.mkdir(parents=True, exist_ok=True)
    if not KEY.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(KEY)], check=True)
    script = ROOT / "install" / "rootfs" / "create_rootfs.sh"
    subprocess.run([str(script), "--ssh-key", f"{KEY}.pub", "--output", str(ROOTFS)], check=True)


def run_on(address: IPv4Address, command: str, user: str = "pi") -> subprocess.CompletedProcess[str]:
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"]
    given = [word for option in options for word in ("-o", option)]
    words = ["ssh", "-i", str(KEY), *given, f"{user}@{address}", command]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def ssh(address: IPv4Address, command: str, user: str = "pi") -> str:
    """Run a command on the Pi; what it printed."""
    done = run_on(address, command, user)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def is_up(address: IPv4Address) -> bool:
    """The agent answers, and ssh, which makes its keys first, lets us in."""
    return answers(address) and run_on(address, "true").returncode == 0


def answers(address: IPv4Address) -> bool:
    try:
        return "card_errors" in events(address)
    except OSError:
        return False


@pytest.mark.timeout(3600)
def test_debian_on_a_pi_and_on_others_by_an_image_of_its_card(tmp_path: Path) -> None:
    rack = Rack(tmp_path, pis=1, kind="qemu", model="4", files=cache_directory(), card_bytes=CARD_BYTES)
    with managed(rack) as manager:
        put_image(rack)
        rack.start()
        manager.wait_for("up", timeout=INSTALL_TIME)
        address = rack.pis[0].address
        assert address is not None
        until(lambda: is_up(address), START_TIME, "the agent and ssh answer")
        what_the_agent_may(address)
        what_the_manager_gave(manager, address)
        becomes_an_image(manager, address)
        until(lambda: is_up(address), START_TIME, "the agent that came with the import answers")
        what_the_image_brought(manager, address)


def put_image(rack: Rack) -> None:
    new = rack.image.with_suffix(".new")
    shutil.copy(ROOTFS, new)
    new.replace(rack.image)


def what_the_agent_may(address: IPv4Address) -> None:
    """It is a user of its own with one capability: enough to hear what the kernel says of the card."""
    user, resident = ssh(address, "ps -o user=,rss= -p $(systemctl show -P MainPID piman-agent)").split()
    assert user not in ("root", "pi")
    assert int(resident) < 25_000
    assert events(address)["agent"] == VERSION
    before = events(address)["card_errors"]
    assert before is not None, "the kernel's log cannot be read"
    ssh(address, "echo 'mmcblk0: error -110 transferring data, sector 8' | sudo tee /dev/kmsg")
    until(lambda: events(address)["card_errors"] == before + 1, 30, "the error of the card is counted")


def what_the_manager_gave(manager: Manager, address: IPv4Address) -> None:
    """Name, address and time come from the manager, by the services of Debian."""
    assert ssh(address, "hostname").strip() == "pi1"
    until(lambda: "ntp_at" in facts(manager), 120, "it asks the manager for the time")
    assert ssh(address, "timedatectl show-timesync -p ServerName --value").strip() == str(MANAGER)


def facts(manager: Manager) -> dict[str, object]:
    found = manager.status()["pi1"]["facts"]
    assert isinstance(found, dict)
    return found


def becomes_an_image(manager: Manager, address: IPv4Address) -> None:
    """As one does it by hand: set a Pi up, copy its card, import the copy, install others with it."""
    ssh(address, f"sudo systemctl disable -q --now piman-agent && sudo rm -r /opt/piman {UNIT}")
    ssh(address, "echo lesson 3 | sudo tee /etc/motd && sudo fstrim -q / ; sync")
    run_on(address, "sudo systemctl poweroff")
    # A virtual Pi begins anew where a real one stays off. Its card is not touched before the installer has asked us.
    until(lambda: manager.stage("pi1") in ("discover", "lease", "firmware"), 120, "it has ended its system")
    does(manager, "power", "off", "pi1")
    card = manager.rack.pis[0].directory / "sd.img"
    does(manager, "image", "import", str(card), "--name", "golden", "--ssh-key", f"{KEY}.pub", "--use")
    does(manager, "reinstall", "pi1")
    manager.wait_for("up", timeout=INSTALL_TIME)


def does(manager: Manager, *words: str) -> None:
    done = manager.piman(*words, timeout=600)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def what_the_image_brought(manager: Manager, address: IPv4Address) -> None:
    told = events(address)
    assert told["image"].startswith("golden-")
    assert told["image"] == facts(manager)["image"]
    assert told["card_errors"] is not None
    assert ssh(address, "cat /etc/motd") == "lesson 3\n"
    assert ssh(address, "hostname", user="root").strip() == "pi1"  # the key of the import
    assert ssh(address, "stat -c '%U %a' /usr/bin/sudo").split() == ["root", "4755"]


if __name__ == "__main__":
    prepare()
