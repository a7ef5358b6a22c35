"""What config.yaml says, as frozen dataclasses with its defaults, and the error of what is wrong. No file here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from utility.drivers import Driver, Oid
from utility.rules import BUILT_IN, AlertSeverity, Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file: where, and what was expected. `line` counts from 1; 0: the file as a whole."""

    file: Path
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return ": ".join(part for part in (place, self.key, self.text) if part)


class ConfigError(Exception):
    """All the problems of the files a user edits, in one report; `str()` is that report, a line a problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
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
    """How a switch is asked. Communities and passwords are secrets: never in `repr`, never logged."""

    version: str = "2c"  # "1", "2c" or "3"
    read_community: str = field(default="public", repr=False)
    write_community: str = field(default="private", repr=False)
    port: int = 161
    timeout: float = 3.0  # of one try
    retries: int = 2
    bulk: bool = True  # no: the switch falls over GETBULK, so its tables are read row by row
    user: str = ""  # of version 3, as what follows
    auth_protocol: str = "SHA"
    priv_protocol: str = "AES"
    auth_password: str = field(default="", repr=False)
    priv_password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Commands:
    """Of `driver: exec`: what a shell runs, with {port} and {address} filled in. `status` prints on or off."""

    on: str
    off: str
    status: str
    ports: int  # how many there are, from 1 on
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Controller:
    """Of `driver: unifi` and `driver: routeros`: whose web interface is asked."""

    url: str  # https://host[:port]
    user: str
    password: str = field(default="", repr=False)
    site: str = "default"  # of UniFi
    fingerprint: str = ""  # SHA-256 of its certificate, where nobody vouches for that; hexadecimal, no colons


@dataclass(frozen=True, slots=True)
class Switch:
    """A PoE switch. `index` is its place in config.yaml, from 0."""

    index: int
    address: IPv4Address
    name: str = ""
    pi_addresses: tuple[IPv4Address | None, ...] = ()  # entry 0 is the Pi on port 1
    snmp: SnmpAccess = SnmpAccess()
    off_time: float = 5.0
    power_budget: float = 0.0  # watts that all its ports may take together; 0: as the switch says itself
    protected_ports: frozenset[int] = frozenset()
    driver: str = "auto"  # SNMP, as it says what it is; or the name of a driver, which is one of HOW for other ways
    drivers: tuple[Driver, ...] = ()  # the rows of config.yaml, which go before those of drivers.py
    commands: Commands | None = None  # of exec
    controller: Controller | None = None  # of unifi, routeros
    # Not from config.yaml: which interface a PoE port is, by the PoE index, where `calibrate` found out by trying.
    calibrated: Mapping[Oid, int] = field(default_factory=dict)


Pool = tuple[IPv4Address, IPv4Address]  # first and last


@dataclass(frozen=True, slots=True)
class Subnet:
    """A network behind a DHCP relay. Its hosts reach the manager by `router`."""

    network: IPv4Network
    router: IPv4Address
    lease_time: int = 600
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()  # empty: the server itself
    pool: Pool | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts are told. `url` and `secret` are never in `repr`, never logged.

    kind       "slack" (and what takes the same form), "email", "webhook" or "script"
    severity   the least that is told; resolved: also that an alert is over
    secret     the password of a mail server, the token of a webhook
    """

    name: str
    kind: str
    url: str = field(default="", repr=False)
    to: tuple[str, ...] = ()
    sender: str = ""
    server: str = "localhost"
    port: int = 25
    security: str = "none"  # or "starttls", "tls"
    user: str = ""
    path: Path = Path()
    secret: str = field(default="", repr=False)
    severity: AlertSeverity = AlertSeverity.WARNING
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class Healing:
    """What Piman does by itself about a Pi that is dead. Times are seconds; limits are counted over 24 hours."""

    enabled: bool = False
    dry_run: bool = False  # tell what would be done, and do nothing
    after: float = 300.0  # without a sign of life
    cooldown: float = 900.0  # between two steps for one Pi
    per_pi: int = 3  # steps a day
    per_rack: int = 10  # steps a day
    reinstall: bool = False  # as the second step; it erases the card
    boot_after: float = 300.0  # without another stage of a boot
    boot_tries: int = 3


@dataclass(frozen=True, slots=True)
class Monitoring:
    """How the Pis are polled and what is raised when they are not well."""

    interval: float = 10.0
    timeout: float = 3.0  # of one poll
    port: int = 3000  # of the agent on the Pis
    rules: tuple[Rule, ...] = BUILT_IN
    channels: tuple[Channel, ...] = ()
    healing: Healing = Healing()


@dataclass(frozen=True, slots=True)
class Web:
    """Where the web page is, and how it is protected. Off localhost it asks for a password."""

    addresses: tuple[str, ...] = ("127.0.0.1",)  # of this machine; 0.0.0.0 and ::: all of them
    names: tuple[str, ...] = ()  # host names by which it may be reached, besides this machine's own
    tls: str = "auto"  # or "on", "off"; auto: off localhost
    certificate: Path | None = None  # PEM; None: one is made
    key: Path | None = None  # PEM, of the certificate

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return all(ip_address(each).is_loopback for each in self.addresses)


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
    site: str = ""  # tells this rack from others; empty: the domain, else the machine's name
    lease_time: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()  # empty: the server itself
    ports: Ports = Ports()
    services: tuple[str, ...] = ("dhcp", "tftp", "hello", "ntp", "web", "monitoring")
    subnets: tuple[Subnet, ...] = ()
    dhcp_mode: str = "server"  # or "proxy": beside another DHCP server
    reply_delay: float | None = None  # seconds; None: as each kind of board needs
    unknown_pis: str = "ignore"  # or "pool", "approve"
    pool: Pool | None = None  # addresses for unknown Pis
    serve_firmware_updates: bool | frozenset[str] = False  # or the hostnames (lower case) and MACs that get them
    local_stratum: int | None = 10  # what we are without a time source; None: unsynchronised
    ntp_rate_limit: float | None = None  # seconds between two answers to one client
    snmp: SnmpAccess = SnmpAccess()
    monitoring: Monitoring = Monitoring()
    web: Web = Web()
    slack_webhook: str = field(default="", repr=False)  # is among the channels
    web_password: str = field(default="", repr=False)

    @property
    def taken(self) -> frozenset[IPv4Address]:
        """The addresses that no Pi may have: the server's, the switches', the routers'."""
        router = () if self.router is None else (self.router,)
        far = (subnet.router for subnet in self.subnets)
        return frozenset((self.server_address, *router, *far, *(switch.address for switch in self.switches)))

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """Where a Pi may have its address: the manager's own network, and those behind relays."""
        return (self.network, *(subnet.network for subnet in self.subnets))

    @property
    def pi_addresses(self) -> tuple[IPv4Address, ...]:
        """All the Pi addresses of all the switches, in the file's order."""
        return tuple(a for switch in self.switches for a in switch.pi_addresses if a is not None)


def with_calibrations(config: Config, calibrations: Mapping[str, Mapping[Oid, int]]) -> Config:
    """The same, its switches knowing which interface a PoE port is, as trials have shown; by address and PoE index."""
    switches = tuple(
        replace(switch, calibrated=calibrations.get(str(switch.address), {})) for switch in config.switches
    )
    return replace(config, switches=switches)


HOW = ("exec", "unifi", "routeros")  # the drivers that are not SNMP
SERVICES = ("dhcp", "tftp", "hello", "ntp", "web", "monitoring")
MAX_POOL = 0xFFFF
