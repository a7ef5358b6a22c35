"""The servers that are compared, each started as its user would: ours as `piman.py server`, the peers from Debian.

Two network namespaces joined by a veth pair: servers run in the one, the load in the other. Processes and files
only; what is measured is in bench.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SERVER, LOAD = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
PREFIX = 16
FIRST_PI = IPv4Address("10.77.64.1")
SPACES = {"server": ("bench-server", "veth-server", SERVER), "load": ("bench-load", "veth-load", LOAD)}
START_PATIENCE, STOP_PATIENCE, IDLE_PATIENCE, BOARD_PATIENCE = 30.0, 10.0, 10.0, 30.0

BOOT_FILE = "kernel8.img"
NTP_PORT, TFTP_PORT, DHCP_PORT, HELLO_PORT, IMAGE_PORT, HTTP_PORT = 123, 69, 67, 3333, 4444, 80


def mac_of(number: int) -> str:
    """The MAC of the load generators' Pi of that number."""
    return f"b8:27:eb:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def make_wire(addresses: int) -> None:
    """The two namespaces; the load's end has the addresses of the first Pis too."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    (near, near_end, _), (far, far_end, _) = SPACES.values()
    for space, _, _ in SPACES.values():
        ip("netns", "add", space)
    ip("link", "add", near_end, "netns", near, "type", "veth", "peer", "name", far_end, "netns", far)
    for space, end, address in SPACES.values():
        ip("-n", space, "addr", "add", f"{address}/{PREFIX}", "dev", end)
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", end, "up")
    for number in range(addresses):
        ip("-n", far, "addr", "add", f"{FIRST_PI + number}/{PREFIX}", "dev", far_end)


def in_space(space: str, words: Sequence[str]) -> list[str]:
    return ["ip", "netns", "exec", SPACES[space][0], *words]


@dataclass(frozen=True, slots=True)
class Server:
    """How a server is started, and the port at which it is seen to be ready."""

    name: str
    words: Sequence[str]
    port: int
    environment: Mapping[str, str]


@contextlib.contextmanager
def running(server: Server, folder: Path) -> Iterator[psutil.Process]:
    """Start it, wait until its port is bound, stop it at the end; what it says is in FOLDER/NAME.log."""
    said = folder / f"{server.name}.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            in_space("server", server.words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | server.environment,
        )
    try:
        deadline = time.monotonic() + START_PATIENCE
        while not is_bound(process.pid, server.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{server.name} did not start:\n{said.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        time.sleep(0.3)  # what a server still does after it has bound
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_bound(pid: int, port: int) -> bool:
    """Whether the UDP port is bound, or the TCP port listened at, in the process's network (proc(5))."""
    for table, state in (("udp", "07"), ("tcp", "0A")):  # what the last server left in TIME_WAIT does not count
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == state:
                    return Path(f"/proc/{pid}/comm").read_text().strip() != "ip"
    return False


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of the process and its children so far, user and system."""
    family = [process, *process.children(recursive=True)]
    return float(sum(times.user + times.system for times in (each.cpu_times() for each in family)))


def wait_until_idle(process: psutil.Process) -> None:
    """Until it has done what it put off, or for IDLE_PATIENCE."""
    deadline, before = time.monotonic() + IDLE_PATIENCE, cpu_seconds(process)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = cpu_seconds(process)
        if now - before < 0.05:
            return
        before = now


# ------------------------------------------------------------------------------------------------------------- ours


def piman(service: str, port: int, hosts: int) -> Callable[[Path], Server]:
    """`piman.py server` with one service, and so many Pis in hosts.csv."""

    def make(folder: Path) -> Server:
        home = folder / f"piman-{service}"
        (home / "boot").mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (home / "boot" / BOOT_FILE).hardlink_to(folder / "boot" / BOOT_FILE)
        (home / "config.yaml").write_text(
            f"private_number: 4\nserver_address: {SERVER}\nsubnet_mask: 255.255.0.0\ninterface: veth-server\n"
            f"switches: []\nboot_dir: boot\nimage: {folder / 'www' / 'image'}\nservices: [{service}]\n"
        )
        pis = (f"{mac_of(number)};{FIRST_PI + number};pi{number};0\n" for number in range(hosts))
        (home / "hosts.csv").write_text("".join([f"b8:27:eb:ff:ff:fe;{LOAD};load;0\n", *pis]))
        (home / "state" / "piman.db").unlink(missing_ok=True)  # a first start, each time
        words = [sys.executable, str(ROOT / "piman.py"), "-c", str(home / "config.yaml"), "-q", "server"]
        return Server(f"piman-{service}", words, port, {})

    return make


def wait_until_on_board(folder: Path, pis: int) -> None:
    """Until so many Pis have their lease on the board of `piman` in that folder, and both their steps are told."""
    sql = "SELECT (SELECT count(*) FROM pis WHERE stage = 'lease'), (SELECT count(*) FROM events)"
    with contextlib.closing(sqlite3.connect(folder / "piman-dhcp" / "state" / "piman.db")) as board:
        deadline = time.monotonic() + BOARD_PATIENCE
        while (found := board.execute(sql).fetchone()) < (pis, 2 * pis):
            if time.monotonic() > deadline:
                raise RuntimeError(f"of {pis} Pis {found[0]} got on the board, with {found[1]} events")
            time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------ peers


def dnsmasq_tftp(folder: Path) -> Server:
    words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root"]
    words += [
        "--enable-tftp",
        f"--tftp-root={folder / 'boot'}",
        "--tftp-max=1000",
        f"--pid-file={folder / 'dnsmasq.pid'}",
    ]
    return Server("dnsmasq-tftp", [*words, "--log-facility=-"], TFTP_PORT, {})


def atftpd(folder: Path) -> Server:
    words = [
        "atftpd",
        "--daemon",
        "--no-fork",
        "--logfile",
        "-",
        "--user",
        "root",
        "--group",
        "root",
        "--maxthread",
        "1000",
    ]
    return Server("atftpd", [*words, "--bind-address", str(SERVER), str(folder / "boot")], TFTP_PORT, {})


def dnsmasq_dhcp(hosts: int) -> Callable[[Path], Server]:
    def make(folder: Path) -> Server:
        config = folder / "dnsmasq.conf"
        lines = ["port=0", "interface=veth-server", "bind-interfaces", "user=root", "group=root", "no-ping"]
        lines += ["log-facility=-", "quiet-dhcp", "dhcp-authoritative", "dhcp-lease-max=20000"]
        lines += [f"dhcp-range={FIRST_PI},static,255.255.0.0,600", f"pid-file={folder / 'dnsmasq.pid'}"]
        lines += [f"dhcp-leasefile={folder / 'dnsmasq.leases'}"]
        lines += [f"dhcp-host={mac_of(number)},{FIRST_PI + number},pi{number}" for number in range(hosts)]
        config.write_text("\n".join(lines) + "\n")
        (folder / "dnsmasq.leases").unlink(missing_ok=True)
        return Server("dnsmasq-dhcp", ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"], DHCP_PORT, {})

    return make


def kea(hosts: int) -> Callable[[Path], Server]:
    def make(folder: Path) -> Server:
        leases = folder / "kea.leases"
        for old in folder.glob("kea.leases*"):
            old.unlink()
        pis = [
            {"hw-address": mac_of(number), "ip-address": str(FIRST_PI + number), "hostname": f"pi{number}"}
            for number in range(hosts)
        ]
        network = f"{SERVER}/{PREFIX}"
        subnet = {
            "id": 1,
            "subnet": f"{FIRST_PI.packed[0]}.{FIRST_PI.packed[1]}.0.0/{network.partition('/')[2]}",
            "reservations": pis,
            "reservations-out-of-pool": True,  # spares it a search of the pool
        }
        config = {
            "Dhcp4": {
                "interfaces-config": {"interfaces": ["veth-server"], "dhcp-socket-type": "raw"},
                "lease-database": {"type": "memfile", "persist": True, "name": str(leases), "lfc-interval": 0},
                "host-reservation-identifiers": ["hw-address"],
                "valid-lifetime": 600,
                "subnet4": [subnet],
                "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stdout"}]}],
            }
        }
        (folder / "kea.json").write_text(json.dumps(config))
        environment = {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)}
        return Server("kea", ["kea-dhcp4", "-c", str(folder / "kea.json")], DHCP_PORT, environment)

    return make


def chronyd(folder: Path) -> Server:
    words = ["chronyd", "-u", "root", "-x", "-d", "local stratum 10", "allow all", "cmdport 0", "bindcmdaddress /"]
    files = [f"pidfile {folder / 'chronyd.pid'}", f"driftfile {folder / 'chronyd.drift'}"]
    return Server("chronyd", [*words, f"bindaddress {SERVER}", *files], NTP_PORT, {})


def nginx(folder: Path) -> Server:
    config = folder / "nginx.conf"
    temporary = " ".join(
        f"{kind}_temp_path {folder / 'nginx'}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"user root; worker_processes 1; daemon off; pid {folder / 'nginx.pid'}; error_log stderr error;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary}\n"
        f"server {{ listen {SERVER}:{HTTP_PORT}; root {folder / 'www'}; }} }}\n"
    )
    (folder / "nginx").mkdir(exist_ok=True)
    return Server("nginx", ["nginx", "-e", "stderr", "-c", str(config)], HTTP_PORT, {})
