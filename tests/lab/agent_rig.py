"""What tests do in a QEMU Pi that runs the real agent: a shell in it, and files in place of what QEMU has not."""

from __future__ import annotations

import json
import socket
import urllib.request
from ipaddress import IPv4Address
from typing import Any

SHELL_PORT, AGENT_PORT = 3001, 3000
SUPPLY = "sys/devices/platform/soc/soc:firmware/get_throttled"
HEAT = "sys/class/thermal/thermal_zone0/temp"


def shell(address: IPv4Address, command: str, timeout: float = 60) -> str:
    """Run a command as root in a Pi of the lab; what it printed. What it leaves running must close its output."""
    with socket.create_connection((str(address), SHELL_PORT), timeout=timeout) as guest:
        guest.sendall(f"{command}\nexit\n".encode())
        data = b""
        while part := guest.recv(4096):
            data += part
    return data.decode(errors="replace")


def write(address: IPv4Address, name: str, text: str) -> None:
    """Put a line into a file that the agent reads before the system's."""
    shell(address, f"mkdir -p /run/agent/{name.rpartition('/')[0]}; echo '{text}' >/run/agent/{name}")


def events(address: IPv4Address, timeout: float = 20) -> dict[str, Any]:
    """What the agent of a Pi answers, without the manager."""
    with urllib.request.urlopen(f"http://{address}:{AGENT_PORT}/events", timeout=timeout) as answer:
        found = json.loads(answer.read())
    assert isinstance(found, dict)
    return found
