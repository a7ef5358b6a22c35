"""config.yaml and .env, parsed into frozen dataclasses; the only module that reads YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file: where, and what was expected. `line` counts from 1; 0: the file as a whole."""

    file: Path
    line: int
    key: str
    text: str


class ConfigError(Exception):
    """All the problems of the files a user edits, in one report; `str()` is that report, a line a problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(f"{p.file}:{p.line}: {p.key}: {p.text}" for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports the services listen on."""

    dhcp: int = 67
    tftp: int = 69
    hello: int = 3333
    image: int = 4444
    ntp: int = 123
    web: int = 5000


@dataclass(frozen=True, slots=True)
class SnmpAccess:
    """How a switch is asked. Communities are secrets: never in `repr`, never logged."""

    version: str = "2c"  # "1" or "2c"
    read_community: str = field(default="public", repr=False)
    write_community: str = field(default="private", repr=False)
    port: int = 161
    timeout: float = 3.0  # of one try
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Switch:
    """A PoE switch. `index` is its place in config.yaml, from 0."""

    index: int
    address: IPv4Address
    name: str = ""
    pi_addresses: tuple[IPv4Address | None, ...] = ()  # entry 0 is the Pi on port 1
    snmp: SnmpAccess = SnmpAccess()
    off_time: float = 5.0
    protected_ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """config.yaml with defaults filled in and paths made absolute (relative ones start at the file's folder)."""

    path: Path
    private_number: int
    server_address: IPv4Address
    network: IPv4Network
    interface: str
    switches: tuple[Switch, ...]
    boot_dir: Path
    image: Path
    state_dir: Path
    log_dir: Path
    lease_time: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()  # empty: the server itself
    ports: Ports = Ports()
    services: tuple[str, ...] = ("dhcp", "tftp", "hello", "ntp")


def load_config(path: Path, env_file: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read config.yaml, .env and the environment; raises ConfigError with every problem."""
    raise NotImplementedError
