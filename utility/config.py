"""config.yaml and .env, parsed into frozen dataclasses; the only module that reads YAML.

Every value is text with a place (file, line, key) until a kind, a function from text to value, has accepted it. The
same kinds serve config.yaml and the PIMAN_ variables. Nothing stops at the first mistake: problems are collected, and
raised together as ConfigError. No service, no log and no hosts.csv here.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import yaml
from dotenv.parser import parse_stream

from utility.drivers import (
    DRIVERS,
    FDB_MODES,
    INDEX_RULES,
    SOURCES,
    STANDARD,
    Detection,
    Driver,
    Oid,
    Supply,
    Watts,
    oid,
)
from utility.rules import (
    BUILT_IN,
    SHORT_NAMES,
    AlertSeverity,
    Rule,
    RuleError,
    merge,
    parse_rule,
    parse_time,
    with_threshold,
)

T = TypeVar("T")


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


def load_config(
    path: Path, env_file: Path | None = None, environ: Mapping[str, str] | None = None, data: bytes | None = None
) -> Config:
    """Read config.yaml, .env and the environment; raises ConfigError with every problem.

    `env_file` None: the .env beside config.yaml, which may be missing. `environ` None: the process's. `data` is read in
    place of what is in the file, to try it.
    A PIMAN_ variable's relative path starts at the .env file's folder, or at the current one.
    """
    environ = os.environ if environ is None else environ
    sheet = _Sheet(path, data)
    _read_env_file(sheet, path.parent / ".env" if env_file is None else env_file, env_file is not None)
    for name in environ:
        if environ[name] and (name in _VARIABLES or _SWITCH_VARIABLE.fullmatch(name)):
            sheet.variables[name] = _Given(environ[name], _Place(Path("environment"), 0, name), Path.cwd())
    root = _read_yaml(sheet)
    config = None if root is None else _read_config(sheet, root, environ)
    if config is None or sheet.problems:
        order = {path: -2, Path("environment"): 0}
        raise ConfigError(tuple(sorted(sheet.problems, key=lambda p: (order.get(p.file, -1), p.line))))
    return config


# ----------------------------------------------------------------------------------------------------------- the keys

_TOP = (
    "private_number", "server_address", "subnet_mask", "interface", "switch_count", "lease_time", "router", "dns",
    "domain", "ntp_servers", "dhcp_mode", "reply_delay", "unknown_pis", "pool", "serve_firmware_updates",
    "local_stratum", "ntp_rate_limit", "boot_dir", "image", "state_dir", "log_dir", "services", "site",
)  # fmt: skip
_TOP_SECTIONS = ("switches", "drivers", "subnets", "ports", "snmp", "monitoring", "web")
_SUBNET = ("network", "subnet_mask", "router", "lease_time", "dns", "domain", "ntp_servers", "pool")
_PORTS = tuple(each.name for each in fields(Ports))
_SNMP = tuple(each.name for each in fields(SnmpAccess))
_MONITORING = ("interval", "timeout", "port")
_MONITORING_SECTIONS = ("thresholds", "rules", "channels", "healing")
_RULE = ("name", "when", "severity", "enabled", "only")
_CHANNEL = ("type", "name", "url", "to", "from", "server", "security", "user", "path", "severity", "resolved")
_HEALING = tuple(each.name for each in fields(Healing) if each.name != "dry_run")
_WEB = ("address", "names", "tls", "certificate", "key")
_SWITCH = (
    "name", "pi_addresses", "snmp", "off_time", "power_budget", "driver", "exec", "unifi", "routeros",
    "protected_ports",
)  # fmt: skip
_DRIVER = (
    "object_id", "like", "admin", "on", "off", "also_on", "index", "detection", "states", "power_class", "class_zero",
    "watts", "watts_unit", "watts_source", "watts_by_port", "capacity", "capacity_unit", "consumption",
    "consumption_unit", "fdb", "read_only",
)  # fmt: skip
_STATES = {
    "disabled": Detection.DISABLED,
    "searching": Detection.SEARCHING,
    "delivering": Detection.DELIVERING,
    "fault": Detection.FAULT,
}
_EXEC = tuple(each.name for each in fields(Commands))
_CONTROLLER = ("server", "user", "site", "fingerprint")
HOW = ("exec", "unifi", "routeros")  # the drivers that are not SNMP
SERVICES = ("dhcp", "tftp", "hello", "ntp", "web", "monitoring")
MAX_POOL = 0xFFFF

_PASSWORDS = ("auth_password", "priv_password")  # of SNMP 3: in no config.yaml
_SECRET_KEYS = frozenset(
    {"read_community", "write_community", *_PASSWORDS, "channels", "url", "slack_webhook", "web_password"}
)
_ALERT_SECRETS = ("slack_webhook", "smtp_password", "webhook_token")
_CONTROLLER_SECRETS = ("unifi_password", "routeros_password")
_SECRET_VARIABLES = frozenset(
    {
        *(f"PIMAN_{key.upper()}" for key in _CONTROLLER_SECRETS),
        *(f"PIMAN_SNMP_{key.upper()}" for key in ("read_community", "write_community", *_PASSWORDS)),
        *(f"PIMAN_{key.upper()}" for key in _ALERT_SECRETS),
        "PIMAN_WEB_PASSWORD",
    }
)
_VARIABLES = _SECRET_VARIABLES | {
    "PIMAN_" + key.upper()
    for key in (
        *_TOP,
        *(f"ports_{key}" for key in _PORTS),
        *(f"snmp_{key}" for key in _SNMP),
        *(f"monitoring_{key}" for key in _MONITORING),
        *(f"web_{key}" for key in _WEB),
    )
}
# Of one switch, by its name in capitals with _ for -, or by its number where it has no name, like
# PIMAN_SNMP_RACK_A_AUTH_PASSWORD and PIMAN_SNMP_0_USER. Which there are is known when config.yaml has been read.
_SWITCH_VARIABLE = re.compile(rf"PIMAN_SNMP_([A-Z0-9_]+?)_({'|'.join(_SNMP).upper()})")
# Read by the command line, the bundle, the lab and the tests; they may stand in .env without harm.
_OTHER_VARIABLES = frozenset({"PIMAN_CONFIG", "PIMAN_HOSTS", "PIMAN_ENV", "PIMAN_CACHE", "PIMAN_SOAK"})


# ---------------------------------------------------------------------------------------------------- text and places


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands."""

    file: Path
    line: int
    key: str


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written; `folder` is where a relative path in it starts."""

    text: str = field(repr=False)
    place: _Place
    folder: Path

    def read(self, kind: Callable[[str], T]) -> T:
        """What `kind` makes of it; ValueError with the whole sentence."""
        try:
            return kind(self.text)
        except ValueError as error:
            if is_secret(self.place.key):
                raise ValueError(f"{error} (the value is a secret and not shown)") from None
            raise ValueError(f"found {_shown(self.text)}; {error}") from None


class _Sheet:
    """What is known while the files are read: the problems, the variables, and where each value was found."""

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        self.path = path
        self.data = data  # what to read in the file's place
        self.problems: list[Problem] = []
        self.variables: dict[str, _Given] = {}
        self.places: dict[str, _Place] = {}

    def problem(self, place: _Place, text: str) -> None:
        self.problems.append(Problem(place.file, place.line, place.key, text))

    def wrong(self, key: str, text: str) -> None:
        """A problem of a value that was read before, by its key path."""
        self.problem(self.places[key], text)

    def place(self, node: yaml.Node, key: str) -> _Place:
        return _Place(self.path, node.start_mark.line + 1, key)


def _last(key: str) -> str:
    """`snmp.read_community` and `monitoring.channels[1]` -> `read_community`, `channels`."""
    return key.rpartition(".")[2].partition("[")[0]


def is_secret(key: str) -> bool:
    """Whether the value of a key, by its path, or of a variable is one that is not shown."""
    of_switch = _SWITCH_VARIABLE.fullmatch(key)
    return key in _SECRET_VARIABLES or _last(of_switch[2].lower() if of_switch else key) in _SECRET_KEYS


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _readable(name: str) -> str:
    """A key as it stands in the file, where that is short and moves no cursor."""
    return name if name.isprintable() and len(name) <= 60 else _shown(name)


def _suggestion(word: str, known: Collection[str], prefix: str = "") -> str:
    """What was meant. A `prefix` that all of them have would make them all look alike, and is left out of account."""
    near = difflib.get_close_matches(word.removeprefix(prefix), [each.removeprefix(prefix) for each in known], 1)
    return f"did you mean `{prefix}{near[0]}`?" if near else f"known here: {', '.join(known)}"


def _read_env_file(sheet: _Sheet, path: Path, wanted: bool) -> None:
    text = _read_text(sheet, path, wanted)
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        name = binding.key or ""
        place = _Place(path, line, _readable(name))
        if binding.error:
            sheet.problem(place, "expected NAME=value")
        elif name in lines:
            sheet.problem(place, f"given twice; first in line {lines[name]}")
        elif (name in _VARIABLES or _SWITCH_VARIABLE.fullmatch(name)) and binding.value:
            sheet.variables[name] = _Given(binding.value, place, path.parent.absolute())
        elif _is_unknown(name):
            sheet.problem(place, f"unknown variable; {_suggestion(name, sorted(_VARIABLES), 'PIMAN_')}")
        if name:
            lines.setdefault(name, line)


def _is_unknown(name: str) -> bool:
    known = name in _VARIABLES or name in _OTHER_VARIABLES or name.startswith("PIMAN_LAB")
    return name.startswith("PIMAN_") and not known and not _SWITCH_VARIABLE.fullmatch(name)


def _read_text(sheet: _Sheet, path: Path, wanted: bool = True) -> str:
    """A file's text, or a problem and "". `wanted`: it is a problem that there is none."""
    try:
        data = path.read_bytes() if sheet.data is None or path != sheet.path else sheet.data
    except (FileNotFoundError, NotADirectoryError):
        if wanted:
            sheet.problem(_Place(path, 0, ""), "does not exist")
        return ""
    except OSError as error:
        sheet.problem(_Place(path, 0, ""), f"cannot be read: {error.strerror}")
        return ""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        sheet.problem(_Place(path, line, ""), f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8")
        return ""


# ------------------------------------------------------------------------------------------------------- YAML to text


def _read_yaml(sheet: _Sheet) -> yaml.Node | None:
    before = len(sheet.problems)
    text = _read_text(sheet, sheet.path)
    if len(sheet.problems) > before:
        return None
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        sheet.problem(_Place(sheet.path, line, ""), f"character {unprintable[0]!r} is not allowed in YAML; remove it")
        return None
    root = None
    try:
        # The loader in Python: the one in C crashes on deep nesting, and is not needed for files of this size.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            sheet.problem(_Place(sheet.path, 0, ""), "is empty; expected private_number, server_address ...")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # A community that begins with * reads as an alias: its name must not reach the report.
        what = re.sub(
            r"(alias|anchor|handle) '.*'", r"\1 (quote a value that begins with * & or !)", str(error.problem)
        )
        sheet.problem(_Place(sheet.path, mark.line + 1 if mark else 0, ""), f"is no YAML here: {what}")
    except RecursionError:
        sheet.problem(_Place(sheet.path, 0, ""), "is nested too deeply")
    return root


class _Section:
    """One mapping of config.yaml, with the PIMAN_ variables laid over its scalars.

    path    the key path of the mapping, empty for the whole file
    over    the beginning of its variables' names; None where no variable reaches (inside `switches`)
    """

    def __init__(
        self, sheet: _Sheet, node: yaml.Node | None, path: str, known: Collection[str], over: str | None = None
    ) -> None:
        self.sheet = sheet
        self.path = path
        self.over = over
        self.start = _Place(sheet.path, 0, path) if node is None else sheet.place(node, path)
        self.nodes: dict[str, yaml.Node] = {}
        self.known = known
        if isinstance(node, yaml.MappingNode):
            for key_node, value in node.value:
                self._take(key_node, value)
        elif node is not None and not _is_empty(node):
            sheet.problem(self.start, f"found {_kind_of(node)}; expected keys with values")

    def _take(self, key_node: yaml.Node, value: yaml.Node) -> None:
        if not isinstance(key_node, yaml.ScalarNode):
            self.sheet.problem(self.sheet.place(key_node, self.path), f"found {_kind_of(key_node)}; expected a key")
            return
        name = key_node.value
        place = self.sheet.place(key_node, self.key(_readable(name)))
        if name in self.nodes:
            first = self.sheet.places[place.key].line
            self.sheet.problem(place, f"given twice; first in line {first}")
        elif name in self.known and name not in _PASSWORDS:
            self.sheet.places[place.key] = place
            self.nodes[name] = value
        elif f"{self.over or 'PIMAN_'}{name}".upper() in _SECRET_VARIABLES or name in _PASSWORDS:
            variable = f"{self.over or 'PIMAN_'}{name}".upper()
            self.sheet.problem(place, f"a secret is kept out of this file; put {variable}=... into .env")
        else:
            self.sheet.problem(place, f"unknown key; {_suggestion(name, self.known)}")

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _over(self, name: str) -> _Given | None:
        return None if self.over is None else self.sheet.variables.get(f"{self.over}{name}".upper())

    def given(self, name: str) -> _Given | None:
        """A scalar as it was written, in the environment, .env or config.yaml; None: nowhere, or left empty."""
        key = self.key(name)
        over = self._over(name)
        if over is not None:
            self.sheet.places[key] = over.place
            return over
        node = self.nodes.get(name)
        return None if node is None else self._scalar(node, key)

    def _scalar(self, node: yaml.Node, key: str) -> _Given | None:
        place = self.sheet.place(node, key)
        if not isinstance(node, yaml.ScalarNode):
            self.sheet.problem(place, f"found {_kind_of(node)}; expected one value")
        elif not node.tag.startswith("tag:yaml.org,"):
            self.sheet.problem(place, "begins with `!`; put quotes around the value")
        elif not _is_empty(node):
            self.sheet.places[key] = place
            return _Given(node.value, place, self.sheet.path.parent.absolute())
        return None

    def items(self, name: str) -> list[_Given | None]:
        """A list's entries as they were written; a variable, or a single value, holds them with commas between."""
        node = self.nodes.get(name)
        if self._over(name) is None and isinstance(node, yaml.SequenceNode):
            return [self._scalar(each, f"{self.key(name)}[{i}]") for i, each in enumerate(node.value)]
        if self._over(name) is None and isinstance(node, yaml.MappingNode):
            self.sheet.problem(self.sheet.place(node, self.key(name)), "found keys with values; expected a list")
            return []
        one = self.given(name)
        if one is None:
            return []
        parts = one.text.split(",")
        self.sheet.places.update({f"{self.key(name)}[{i}]": one.place for i in range(len(parts))})
        return [replace(one, text=part.strip()) for part in parts]

    def value(self, name: str, kind: Callable[[str], T], default: T) -> T:
        """The value of a key; the default where there is none, or where there is a problem with it."""
        return self.read(self.given(name), kind, default)

    def read(self, given: _Given | None, kind: Callable[[str], T], default: T) -> T:
        if given is None:
            return default
        try:
            return given.read(kind)
        except ValueError as error:
            self.sheet.problem(given.place, str(error))
            return default

    def required(self, name: str, kind: Callable[[str], T], expected: str) -> T | None:
        given = self.given(name)
        if given is None:
            place = self.sheet.places.get(self.key(name), replace(self.start, key=self.key(name)))
            self.sheet.problem(place, f"{'is empty' if name in self.nodes else 'is missing'}; expected {expected}")
            return None
        return self.read(given, kind, None)

    def values(self, name: str, kind: Callable[[str], T]) -> tuple[T, ...]:
        """The values of a list; empty entries and those with a problem are left out."""
        read = (self.read(given, kind, None) for given in self.items(name))
        return tuple(value for value in read if value is not None)

    def path_of(self, name: str, default: str) -> Path:
        """A path, absolute; a relative one starts at the folder of the file that holds it."""
        given = self.given(name)
        if given is None:
            return self.sheet.path.parent.absolute() / default
        return given.folder / self.read(given, _PATH, default)

    def section(self, name: str, known: Collection[str], over: str | None = None) -> _Section:
        over = f"{self.over}{name}_" if self.over is not None else over
        return _Section(self.sheet, self.nodes.get(name), self.key(name), known, over)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and (node.tag.endswith(":null") or not node.value.strip())


def _kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "one value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys with values"


# ------------------------------------------------------------------- kinds: text -> value, or ValueError(expected)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def kind(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return kind


def _number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    def kind(text: str) -> float:
        if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{0,15})?", text) or not low <= float(text) <= high:
            raise ValueError(f"expected a number{unit} from {low:g} to {high:g}")
        return float(text)

    return kind


def _choice(*choices: str) -> Callable[[str], str]:
    def kind(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}")
        return text

    return kind


def _pattern(pattern: str, expected: str) -> Callable[[str], str]:
    def kind(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return kind


def _text(text: str) -> str:
    return text


def _time(low: float, high: float) -> Callable[[str], float]:
    """`300`, `5m` -> seconds."""

    def kind(text: str) -> float:
        seconds = parse_time(text)
        if not low <= seconds <= high:
            raise ValueError(f"expected a time from {low:g} to {high:g} seconds")
        return seconds

    return kind


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


def _severity(text: str) -> AlertSeverity:
    if text not in list(AlertSeverity):
        raise ValueError(f"expected {', '.join(AlertSeverity)}")
    return AlertSeverity(text)


_RULE_NAME = _pattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", "a name of letters, digits, _ . and -")
_mail_address = _pattern(r"[^\s@,;<>\"']{1,64}@[A-Za-z0-9.-]{1,253}", "an address, like ops@example.org")
_CHANNEL_KEYS: Mapping[str, tuple[str, ...]] = {
    "slack": ("url",),
    "email": ("to", "from", "server", "security", "user"),
    "webhook": ("url",),
    "script": ("path",),
}


def _url(text: str) -> str:
    expected = "expected an address that begins with https:// or http://"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    is_ascii = text.isascii() and text.isprintable() and " " not in text
    if not is_ascii or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(expected)
    if parts.username or parts.password:
        raise ValueError("expected an address without a user in it; a token goes into .env as PIMAN_WEBHOOK_TOKEN=...")
    return text


def _host_and_port(text: str) -> tuple[str, int]:
    host, _colon, port = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host) or (
        port and (not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535)
    ):
        raise ValueError("expected a server, like mail.example.org or mail.example.org:587")
    return host, int(port or 0)


def _default_sender() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename) or "localhost"
    return f"piman@{host}"


def _slack_form(url: str) -> str:
    """Discord takes Slack's form at an address of its own."""
    is_discord = re.match(r"https://(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/", url)
    return f"{url.rstrip('/')}/slack" if is_discord and not url.rstrip("/").endswith("/slack") else url


def _channel(text: str) -> Channel:
    """A channel in one word."""
    if text == "slack":
        return Channel("slack", "slack")
    if text.startswith(("http://", "https://")):
        url = _slack_form(_url(text))
        parts = urlsplit(url)
        is_slack = parts.hostname == "hooks.slack.com" or parts.path.endswith("/slack") or "/hooks/" in parts.path
        kind = "slack" if is_slack else "webhook"
        return Channel(kind, kind, url=url)
    if "@" in text and "/" not in text:
        return Channel("email", "email", to=(_mail_address(text.removeprefix("mailto:")),), sender=_default_sender())
    if "/" in text:
        return Channel("script", "script", path=Path(_PATH(text)))
    raise ValueError(
        "expected slack, an address like ops@example.org or https://example.org/alerts, the path of a script, or keys"
    )


def _address(text: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError("expected an IPv4 address like 172.30.4.1") from None
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise ValueError("expected the IPv4 address of one machine")
    return address


def _mask(text: str) -> int:
    """A subnet mask -> its prefix length."""
    expected = "expected a subnet mask from 255.0.0.0 to 255.255.255.252, like 255.255.255.0"
    try:
        zeros = int(IPv4Address(text)) ^ 0xFFFFFFFF
    except ValueError:
        raise ValueError(expected) from None
    if zeros & (zeros + 1):
        raise ValueError("its ones are not all on the left; " + expected)
    if not 8 <= 32 - zeros.bit_length() <= 30:
        raise ValueError(expected)
    return 32 - zeros.bit_length()


def _ports(text: str) -> frozenset[int]:
    """`7` or `1-4` -> the ports."""
    first, _, last = text.partition("-")
    port = _whole(1, 1024)
    low, high = port(first.strip()), port(last.strip() or first.strip())
    if low > high:
        raise ValueError("the first port comes after the last")
    return frozenset(range(low, high + 1))


def _protocol(names: Collection[str], others: dict[str, str]) -> Callable[[str], str]:
    """The name of a protocol of SNMP 3, in any case, with or without -, or one of the `others`; or none."""
    known = {name.replace("-", ""): name for name in names} | others | {"NONE": "none"}

    def kind(text: str) -> str:
        name = re.sub(r"[-_]", "", text.upper())
        if name not in known:
            raise ValueError(f"expected {', '.join(names)} or none")
        return known[name]

    return kind


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


def _listen(text: str) -> str:
    """An address to listen on, of either family; 0.0.0.0 and :: are all of them."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("expected an address of this machine, like 127.0.0.1, or 0.0.0.0 for all of them") from None


def _pool(text: str) -> Pool:
    """`172.30.4.100-172.30.4.150` -> the first and the last address."""
    first, _, last = text.partition("-")
    try:
        low, high = _address(first.strip()), _address(last.strip())
    except ValueError:
        raise ValueError("expected the first and the last address, like 172.30.4.100-172.30.4.150") from None
    if low > high:
        raise ValueError("the first address comes after the last")
    if int(high) - int(low) > MAX_POOL:
        raise ValueError(f"a pool has at most {MAX_POOL + 1} addresses")
    return low, high


def _network(text: str) -> IPv4Network:
    """`10.2.0.0/24`, or the address alone, whose mask stands beside it."""
    try:
        network = IPv4Network(text)
    except ValueError:
        raise ValueError("expected a network, like 10.2.0.0/24") from None
    if "/" in text and not 8 <= network.prefixlen <= 30:
        raise ValueError("expected a network from /8 to /30")
    return network


def _or_word(word: str, kind: Callable[[str], T]) -> Callable[[str], T | None]:
    """`word` stands for None."""

    def read(text: str) -> T | None:
        if text.lower() == word:
            return None
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return read


def _board(text: str) -> str:
    """A hostname or a MAC, in lower case."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return text.replace("-", ":").lower()
    if not re.fullmatch(_LABEL, text):
        raise ValueError("expected true, false, or a list of hostnames and MACs")
    return text.lower()


def _oid(text: str) -> Oid:
    """`1.3.6.1.2.1.105.1.1.1.3` or `.1.3...`"""
    if not re.fullmatch(r"\.?[0-2](\.[0-9]{1,10}){2,64}", text):
        raise ValueError("expected an OID in numbers, like 1.3.6.1.2.1.105.1.1.1.3")
    return oid(text.lstrip("."))


def _state(text: str) -> int | str:
    """What stands in a switch's column: a number, or a word."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text.lower()


def _command(text: str) -> str:
    stray = re.search(r"\{(?!port\}|address\})[a-z_]+\}", text)
    if stray:
        raise ValueError(
            f"{stray[0]} is not known; expected a command with {{port}} and, where it wants it, {{address}}"
        )
    return text


def _base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?/?", text):
        raise ValueError("expected https://HOST or https://HOST:PORT")
    return text.rstrip("/")


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("expected the SHA-256 of the certificate, 64 hexadecimal digits")
    return digits


_PATH = _pattern(r"[^\x00-\x1f]{1,4096}", "a path")
_INTERFACE = _pattern(r"[A-Za-z0-9_.-]{1,15}", "a network interface's name, like eth0")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = _pattern(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "a domain name, like rack.example.org")
# SWITCH on the command line is an address, a number or a name: a name must not look like the other two.
_SWITCH_NAME = _pattern(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9_-]{0,62})", "a name of letters, digits, - and _")
_DRIVER_NAME = _pattern(r"[a-z0-9][a-z0-9-]{0,62}", "a driver's name of small letters, digits and -")
_SITE_NAME = _pattern(
    r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?", "a short name, of letters, digits, spaces and . _ -"
)
_SITE = _pattern(r"[A-Za-z0-9_-]{1,64}", "the site's short name, as in the controller's address bar")
_COMMUNITY = _pattern(r"\S.{0,254}", "a community of 1 to 255 characters")
_USER = _pattern(r"\S{1,32}", "a user's name of 1 to 32 characters")
_PASSWORD = _pattern(r".{8,255}", "a password of 8 to 255 characters, as SNMP 3 wants it")
_AUTH = _protocol(("MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"), {"SHA1": "SHA"})
_PRIV = _protocol(("DES", "AES", "AES-192", "AES-256", "AES-192-C", "AES-256-C"), {"AES128": "AES"})


# ------------------------------------------------------------------------------------------------------ text to Config


def _read_config(sheet: _Sheet, root: yaml.Node, environ: Mapping[str, str]) -> Config | None:
    """The whole file; None where the base of the network has a problem. Other problems are only collected."""
    top = _Section(sheet, root, "", (*_TOP, *_TOP_SECTIONS), "PIMAN_")
    number = top.required("private_number", _whole(0, 4094), "the number of the VLAN, like 4")
    server = top.required("server_address", _address, "the manager's address, like 172.30.4.1")
    prefix = top.required("subnet_mask", _mask, "a mask, like 255.255.255.0")
    interface = top.required("interface", _INTERFACE, "a network interface's name, like eth0")
    snmp = _read_snmp(top.section("snmp", _SNMP), SnmpAccess(), number)
    drivers = _read_drivers(top)
    passwords = {each: top.value(each, _text, "") for each in _CONTROLLER_SECRETS}
    switches = tuple(_with_password(each, passwords) for each in _read_switches(top, snmp, number, drivers))
    boot_dir = top.path_of("boot_dir", "install/boot")
    service_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): more than one, colons between
    state_dir = top.path_of("state_dir", "state")
    services = top.values("services", _choice(*SERVICES))
    stratum: int | None = 10
    config = Config(
        path=sheet.path.absolute(),
        private_number=number or 0,
        server_address=server or IPv4Address(0),
        network=IPv4Network((int(server or 0), 30 if prefix is None else prefix), strict=False),
        interface=interface or "",
        switches=switches,
        boot_dir=boot_dir,
        image=_read_image(top, boot_dir),
        state_dir=Path(service_dir).absolute() if service_dir else state_dir,
        log_dir=top.path_of("log_dir", "logs"),
        site=top.value("site", _SITE_NAME, ""),
        lease_time=top.value("lease_time", _whole(10, 31_536_000), 600),
        router=top.value("router", _address, None),
        dns=top.values("dns", _address),
        domain=top.value("domain", _DOMAIN, ""),
        ntp_servers=top.values("ntp_servers", _address),
        ports=_read_ports(top.section("ports", _PORTS)),
        services=tuple(dict.fromkeys(services)) or SERVICES,
        subnets=(),
        dhcp_mode=top.value("dhcp_mode", _choice("server", "proxy"), "server"),
        reply_delay=top.value("reply_delay", _or_word("auto", _number(0, 10, " of seconds")), None),
        unknown_pis=top.value("unknown_pis", _choice("ignore", "pool", "approve"), "ignore"),
        pool=top.value("pool", _pool, None),
        serve_firmware_updates=_read_boards(top, "serve_firmware_updates"),
        local_stratum=top.value("local_stratum", _or_word("none", _whole(1, 15)), stratum),
        ntp_rate_limit=top.value("ntp_rate_limit", _or_word("none", _number(0.1, 3600, " of seconds")), None),
        snmp=snmp,
        monitoring=_read_monitoring(
            top.section("monitoring", (*_MONITORING, *_MONITORING_SECTIONS)),
            {each: top.value(each, _text, "") for each in _ALERT_SECRETS},
        ),
        web=_read_web(top.section("web", _WEB)),
        slack_webhook=top.value("slack_webhook", _text, ""),
        web_password=top.value("web_password", _text, ""),
    )
    if server is None or prefix is None:
        return None
    subnets = _read_subnets(top, config)
    config = replace(config, subnets=tuple(subnets.values()))
    _check_network(sheet, config)
    _check_subnets(sheet, config, subnets)
    _check_pis(sheet, config)
    _check_pools(sheet, config, subnets)
    return config


def _read_boards(top: _Section, name: str) -> bool | frozenset[str]:
    """`true`, `false`, or those boards for which it is true."""
    given = [each for each in top.items(name) if each is not None]
    if len(given) == 1 and given[0].text.lower() in ("true", "false"):
        return given[0].text.lower() == "true"
    return frozenset(top.values(name, _board)) or False


def _read_subnets(top: _Section, config: Config) -> dict[str, Subnet]:
    """The subnets by their keys."""
    sheet, node = top.sheet, top.nodes.get("subnets")
    if node is None or _is_empty(node):
        return {}
    if not isinstance(node, yaml.SequenceNode):
        sheet.problem(sheet.place(node, "subnets"), f"found {_kind_of(node)}; expected a list of networks")
        return {}
    sheet.places["subnets"] = sheet.place(node, "subnets")
    read = {f"subnets[{i}]": _read_subnet(sheet, each, f"subnets[{i}]", config) for i, each in enumerate(node.value)}
    return {key: subnet for key, subnet in read.items() if subnet is not None}


def _read_subnet(sheet: _Sheet, node: yaml.Node, path: str, config: Config) -> Subnet | None:
    """One entry; what it does not say of leases is as in the manager's network. None: there is no network in it."""
    section = _Section(sheet, node, path, _SUBNET)
    network = section.required("network", _network, "a network, like 10.2.0.0/24")
    router = section.required("router", _address, "its router, by which its Pis reach this manager")
    given, mask = section.given("network"), section.value("subnet_mask", _mask, None)
    if network is not None and mask is not None and given is not None and "/" not in given.text:
        network = IPv4Network((int(network.network_address), mask), strict=False)
    elif network is not None and given is not None and "/" not in given.text:
        sheet.wrong(f"{path}.network", f"found {given.text!r}; expected its size with it, like {given.text}/24")
        network = None
    if network is None or router is None:
        return None
    return Subnet(
        network=network,
        router=router,
        lease_time=section.value("lease_time", _whole(10, 31_536_000), config.lease_time),
        dns=section.values("dns", _address) or config.dns,
        domain=section.value("domain", _DOMAIN, config.domain),
        ntp_servers=section.values("ntp_servers", _address) or config.ntp_servers,
        pool=section.value("pool", _pool, None),
    )


def _read_image(top: _Section, boot_dir: Path) -> Path:
    """A bare name is looked for in boot_dir, as the default is; anything else is a path."""
    given = top.given("image")
    if given is None or "/" not in given.text:
        return boot_dir / (given.text if given else "rootfs.tgz")
    return top.path_of("image", "")


def _read_ports(section: _Section) -> Ports:
    port = _whole(1, 65535)
    read = {name: section.value(name, port, getattr(Ports(), name)) for name in _PORTS}
    for group in (("dhcp", "tftp", "ntp"), ("hello", "image", "web")):  # UDP, TCP
        for i, name in enumerate(group):
            twin = next((other for other in group[:i] if read[other] == read[name]), None)
            if twin:
                late, early = (name, twin) if section.key(name) in section.sheet.places else (twin, name)
                section.sheet.wrong(section.key(late), f"port {read[name]} is also the port of {early}")
    return Ports(**read)


def _read_snmp(section: _Section, base: SnmpAccess, number: int | None) -> SnmpAccess:
    def community(name: str, default: str) -> str:
        return section.value(name, _COMMUNITY, default).replace("{private_number}", str(number or 0))

    return SnmpAccess(
        version=section.value("version", _choice("1", "2c", "3"), base.version),
        read_community=community("read_community", base.read_community),
        write_community=community("write_community", base.write_community),
        port=section.value("port", _whole(1, 65535), base.port),
        timeout=section.value("timeout", _number(0.1, 60, " of seconds"), base.timeout),
        retries=section.value("retries", _whole(0, 10), base.retries),
        bulk=section.value("bulk", _flag, base.bulk),
        user=section.value("user", _USER, base.user),
        auth_protocol=section.value("auth_protocol", _AUTH, base.auth_protocol),
        priv_protocol=section.value("priv_protocol", _PRIV, base.priv_protocol),
        auth_password=section.value("auth_password", _PASSWORD, base.auth_password),
        priv_password=section.value("priv_password", _PASSWORD, base.priv_password),
    )


def _read_web(section: _Section) -> Web:
    files = {name: section.path_of(name, "") if section.given(name) else None for name in ("certificate", "key")}
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if files[name] and not files[other]:
            section.sheet.wrong(section.key(name), f"needs `{other}:` beside it")
    return Web(
        addresses=section.values("address", _listen) or Web().addresses,
        names=tuple(name.lower() for name in section.values("names", _DOMAIN)),
        tls=section.value("tls", _choice("auto", "on", "off"), "auto"),
        certificate=files["certificate"],
        key=files["key"],
    )


def _read_access(section: _Section, base: SnmpAccess, number: int | None) -> SnmpAccess:
    """Of a switch."""
    access = _read_snmp(section, base, number)
    _check_user(section, access)
    return access


def _check_user(section: _Section, access: SnmpAccess) -> None:
    """What version 3 needs of a switch's access, where it is spoken."""
    sheet, over = section.sheet, section.over or ""
    others = (section.path, over, *(f"PIMAN_SNMP_{each}".upper() for each in ("user", *_PASSWORDS)))
    if access.version != "3" or any(problem.key.startswith(others) for problem in sheet.problems):
        return  # a value that was refused is not a missing one
    own = section.key("version")
    place = sheet.places.get(own) or sheet.places.get("snmp.version") or section.start
    where = f"put PIMAN_SNMP_{{0}}=... (or {over}{{0}} for this switch alone) into .env"
    if not access.user:
        sheet.problem(place, f"version 3 needs a user; give `user:`, or {where.format('USER')}")
    if access.priv_protocol != "none" and access.auth_protocol == "none":
        sheet.problem(place, "priv_protocol needs an auth_protocol; set it, or priv_protocol none too")
    for name, protocol in (("auth", access.auth_protocol), ("priv", access.priv_protocol)):
        if protocol != "none" and not getattr(access, f"{name}_password"):
            what = f"no password for {name}_protocol {protocol}"
            sheet.problem(place, f"{what}; {where.format(f'{name}_password'.upper())}, or set {name}_protocol none")


def _read_monitoring(section: _Section, secrets: Mapping[str, str]) -> Monitoring:
    interval = section.value("interval", _number(1, 86400, " of seconds"), Monitoring().interval)
    timeout = section.value("timeout", _number(0.1, 60, " of seconds"), min(Monitoring().timeout, interval))
    if timeout > interval:
        text = f"found {timeout:g}; expected less than the interval, {interval:g} s"
        section.sheet.wrong(section.key("timeout"), text)
    return Monitoring(
        interval=interval,
        timeout=timeout,
        port=section.value("port", _whole(1, 65535), Monitoring().port),
        rules=_read_rules(section),
        channels=_read_channels(section, secrets),
        healing=_read_healing(section),
    )


def _entries(section: _Section, name: str) -> list[tuple[str, yaml.Node]]:
    """The entries of a list that may be mappings, each with its key; a single value is a list of one."""
    node = section.nodes.get(name)
    if node is None or _is_empty(node):
        return []
    if isinstance(node, yaml.MappingNode):
        section.sheet.problem(section.sheet.place(node, section.key(name)), "found keys with values; expected a list")
        return []
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [(f"{section.key(name)}[{i}]", each) for i, each in enumerate(entries) if not _is_empty(each)]


def _read_rules(section: _Section) -> tuple[Rule, ...]:
    """The rules built in, with the thresholds and the rules of the file laid over them."""
    rules = merge(BUILT_IN, _read_thresholds(section))
    lines: dict[str, int] = {}
    for key, node in _entries(section, "rules"):
        rule = _read_rule(section, key, node, {rule.name: rule for rule in rules})
        if rule is None:
            continue
        place = section.sheet.place(node, key)
        if rule.name in lines:
            section.sheet.problem(
                place, f"{rule.name} is already the name of a rule, in line {lines[rule.name]}; name it"
            )
        lines.setdefault(rule.name, place.line)
        rules = merge(rules, [replace(rule, source=f"{section.sheet.path.name} line {place.line}")])
    return rules


def _read_thresholds(section: _Section) -> list[Rule]:
    thresholds = section.nodes.get("thresholds")
    names = [k.value for k, _ in thresholds.value] if isinstance(thresholds, yaml.MappingNode) else []
    table = section.section("thresholds", [name for name in names if isinstance(name, str)])
    built_in = {rule.name: rule for rule in BUILT_IN}
    changed = []
    for name in table.nodes:
        number = table.value(name, _number(-1e9, 1e12), None)
        place = section.sheet.places[table.key(_readable(name))]
        rule = built_in.get(SHORT_NAMES.get(name, name))
        if rule is None:
            section.sheet.problem(place, f"no rule has this name; {_suggestion(name, built_in)}")
        elif number is not None:
            try:
                changed.append(with_threshold(rule, number, f"{section.sheet.path.name} line {place.line}"))
            except RuleError as error:
                section.sheet.problem(place, str(error))
    return changed


def _read_rule(section: _Section, key: str, node: yaml.Node, known: Mapping[str, Rule]) -> Rule | None:
    """A rule in one line, or as keys; those that a rule of the same name has already need not be said again."""
    if not isinstance(node, yaml.MappingNode):
        short = section.read(section._scalar(node, key), parse_rule, None)
        return replace(short, severity=known[short.name].severity) if short and short.name in known else short
    it = _Section(section.sheet, node, key, _RULE)
    given = it.given("when")
    rule = it.read(given, parse_rule, None)
    name = it.value("name", _RULE_NAME, rule.name if rule else "")
    if given is None:
        rule = known.get(name)
        if rule is None:
            place = replace(it.start, key=it.key("when"))
            section.sheet.problem(
                place, f"is missing; expected a rule, like {BUILT_IN[0].expression}, or a name it has"
            )
    if rule is None:
        return None
    base = known.get(name, rule)
    return replace(
        rule,
        name=name,
        severity=it.value("severity", _severity, base.severity),
        enabled=it.value("enabled", _yes_or_no, True),
        only=it.values("only", _text),
    )


def _read_healing(section: _Section) -> Healing:
    """`true`, `false`, `dry-run`, or keys."""
    node = section.nodes.get("healing")
    if node is None or isinstance(node, yaml.ScalarNode):
        mode = section.value("healing", _choice("true", "false", "dry-run"), "false")
        return Healing(enabled=mode != "false", dry_run=mode == "dry-run")
    it, base = section.section("healing", _HEALING), Healing()
    mode = it.value("enabled", _choice("true", "false", "dry-run"), "true")
    return Healing(
        enabled=mode != "false",
        dry_run=mode == "dry-run",
        after=it.value("after", _time(60, 86400), base.after),
        cooldown=it.value("cooldown", _time(60, 86400), base.cooldown),
        per_pi=it.value("per_pi", _whole(1, 100), base.per_pi),
        per_rack=it.value("per_rack", _whole(1, 1000), base.per_rack),
        reinstall=it.value("reinstall", _yes_or_no, base.reinstall),
        boot_after=it.value("boot_after", _time(60, 86400), base.boot_after),
        boot_tries=it.value("boot_tries", _whole(0, 10), base.boot_tries),
    )


def _read_channels(section: _Section, secrets: Mapping[str, str]) -> tuple[Channel, ...]:
    """The channels of the list, and Slack where its secret is given."""
    channels: dict[str, Channel] = {}
    for key, node in _entries(section, "channels"):
        channel = _read_channel(section, key, node, secrets)
        if channel is None:
            continue
        if channel.name in channels and f"{key}.name" in section.sheet.places:
            section.sheet.problem(section.sheet.place(node, key), f"{channel.name} is already the name of a channel")
        names = (channel.name, *(f"{channel.name}-{number}" for number in range(2, 1000)))
        name = next(each for each in names if each not in channels)
        channels[name] = replace(channel, name=name)
    if secrets["slack_webhook"] and not any(each.kind == "slack" for each in channels.values()):
        channels["slack"] = Channel("slack", "slack", url=_slack_form(secrets["slack_webhook"]))
    return tuple(channels.values())


def _read_channel(section: _Section, key: str, node: yaml.Node, secrets: Mapping[str, str]) -> Channel | None:
    sheet = section.sheet
    if isinstance(node, yaml.MappingNode):
        it = _Section(sheet, node, key, _CHANNEL)
        kind = it.required("type", _choice(*_CHANNEL_KEYS), "slack, email, webhook or script")
        channel = _channel_of_keys(it, kind) if kind else None
    else:
        given = section._scalar(node, key)
        channel = section.read(given, _channel, None)
        if channel and given and channel.kind == "script":
            channel = replace(channel, path=given.folder / channel.path)
    if channel is None:
        return None
    problem = ""
    if channel.kind == "slack":
        channel = replace(channel, url=channel.url or _slack_form(secrets["slack_webhook"]))
        problem = "" if channel.url else "needs its address, which is a secret; put PIMAN_SLACK_WEBHOOK=... into .env"
    elif channel.kind == "webhook":
        channel = replace(channel, secret=secrets["webhook_token"])
    elif channel.kind == "email" and channel.user:
        channel = replace(channel, secret=secrets["smtp_password"])
        problem = "" if channel.secret else "needs the password of its user; put PIMAN_SMTP_PASSWORD=... into .env"
    if problem:
        sheet.problem(sheet.place(node, key), problem)
    return channel


def _channel_of_keys(it: _Section, kind: str) -> Channel | None:
    for name in it.nodes:
        if name not in (*_CHANNEL_KEYS[kind], "type", "name", "severity", "resolved"):
            it.sheet.wrong(it.key(name), f"is not for a channel of type {kind}")
    channel = Channel(
        name=it.value("name", _RULE_NAME, kind),
        kind=kind,
        severity=it.value("severity", _severity, AlertSeverity.WARNING),
        resolved=it.value("resolved", _yes_or_no, True),
    )
    if kind == "slack":
        return replace(channel, url=_slack_form(it.value("url", _url, "")))
    if kind == "webhook":
        url = it.required("url", _url, "an address, like https://example.org/alerts")
        return replace(channel, url=url) if url else None
    if kind == "script":
        path = it.required("path", _PATH, "the path of a program")
        return replace(channel, path=it.path_of("path", "")) if path else None
    to = it.values("to", _mail_address)
    if not to and not it.items("to"):
        it.sheet.problem(replace(it.start, key=it.key("to")), "is missing; expected who gets the mail")
    return _mail_server(it, replace(channel, to=to, sender=it.value("from", _mail_address, _default_sender())))


def _mail_server(it: _Section, channel: Channel) -> Channel:
    host, port = it.value("server", _host_and_port, ("localhost", 0))
    is_local = host in ("localhost", "127.0.0.1")
    security = it.value("security", _choice("none", "starttls", "tls"), "none" if is_local else "starttls")
    user = it.value("user", _text, "")
    if user and security == "none" and not is_local:
        it.sheet.wrong(it.key("user"), "its password would be readable on the way; set security: starttls, or tls")
    default = {"none": 25, "starttls": 587, "tls": 465}[security]
    return replace(channel, server=host, port=port or default, security=security, user=user)


def _read_drivers(top: _Section) -> tuple[Driver, ...]:
    """The rows that a user adds to drivers.py; each may begin as one that is there."""
    node = top.nodes.get("drivers")
    names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    table = top.section("drivers", [name for name in names if isinstance(name, str)])
    known = {row.name: row for row in (*DRIVERS, STANDARD)}
    read: dict[str, Driver] = {}
    for name in table.nodes:
        section = table.section(name, _DRIVER)
        try:
            _DRIVER_NAME(name)
        except ValueError as error:
            table.sheet.problem(section.start, str(error))
        if name in known or name in (*HOW, "auto", "snmp"):
            table.sheet.problem(section.start, "is the name of a driver that is there; give it another, and `like:`")
        like = section.value("like", _choice(*sorted({**known, **read})), "standard")
        read[name] = _read_driver(section, name, read.get(like) or known[like])
    return tuple(read.values())


def _read_driver(section: _Section, name: str, base: Driver) -> Driver:
    whole, unit = _whole(0, 2**31 - 1), _whole(1, 1_000_000)
    watts = base.watts
    column = section.value("watts", _oid, watts[0].column if watts else None)
    if column is not None:
        first = watts[0] if watts else Watts(column)
        own = Watts(
            column,
            section.value("watts_unit", unit, first.milliwatts),
            section.value("watts_source", _choice(*SOURCES), first.source),
            section.value("watts_by_port", _flag, first.by_port),
        )
        watts = (own,) if "watts" in section.nodes else (own, *watts[1:])
    given = section.section("states", _STATES)
    states = {value: meaning for word, meaning in _STATES.items() for value in given.values(word, _state)}
    driver = replace(
        base,
        name=name,
        object_ids=section.values("object_id", _oid),
        admin=section.value("admin", _oid, base.admin),
        on=section.value("on", whole, base.on),
        off=section.value("off", whole, base.off),
        also_on=section.values("also_on", whole) or base.also_on,
        index=section.values("index", _choice(*INDEX_RULES)) or base.index,
        detection=section.value("detection", _oid, base.detection),
        states=states or base.states,
        power_class=section.value("power_class", _oid, base.power_class),
        class_zero=section.value("class_zero", _whole(0, 1), base.class_zero),
        watts=watts,
        supply=Supply(
            section.value("capacity", _oid, base.supply.capacity),
            section.value("consumption", _oid, base.supply.consumption),
            section.value("capacity_unit", unit, base.supply.capacity_unit),
            section.value("consumption_unit", unit, base.supply.consumption_unit),
        ),
        fdb=section.value("fdb", _choice(*FDB_MODES), base.fdb),
        read_only=section.value("read_only", _text, base.read_only),
    )
    if driver.off in (driver.on, *driver.also_on):
        section.sheet.problem(section.start, f"{driver.off} is off, and it is on as well")
    return driver


def _read_switches(
    top: _Section, snmp: SnmpAccess, number: int | None, drivers: tuple[Driver, ...]
) -> tuple[Switch, ...]:
    sheet, node = top.sheet, top.nodes.get("switches")
    if not isinstance(node, yaml.SequenceNode):
        place = top.start if node is None else sheet.place(node, "")
        found = "is missing" if node is None else "is empty" if _is_empty(node) else f"found {_kind_of(node)}"
        sheet.problem(replace(place, key="switches"), f"{found}; expected a list of switches, or [] for none")
        return ()
    count = top.value("switch_count", _whole(0, 1000), None)
    if count is not None and count != len(node.value):
        sheet.wrong("switch_count", f"found {count}; expected {len(node.value)}, the number of switches in the list")
    switches = tuple(
        replace(_read_switch(sheet, each, i, snmp, number, drivers), drivers=drivers)
        for i, each in enumerate(node.value)
    )
    _check_variables(sheet, switches)
    return switches


def _variable_name(index: int, name: str) -> str:
    """How a switch is called in the names of its variables."""
    return name.upper().replace("-", "_") or str(index)


def _check_variables(sheet: _Sheet, switches: tuple[Switch, ...]) -> None:
    """A variable of a switch that is not there, or of two, is a mistake."""
    known = [_variable_name(switch.index, switch.name) for switch in switches]
    for variable, given in sheet.variables.items():
        of_switch = _SWITCH_VARIABLE.fullmatch(variable)
        if variable in _VARIABLES or not of_switch:
            continue
        name, count = of_switch[1], known.count(of_switch[1])
        if count == 0:
            sheet.problem(given.place, f"there is no switch {name}; known here: {', '.join(known)}")
        elif count > 1:
            sheet.problem(given.place, f"{count} switches are called {name} here; rename one")


def _read_switch(
    sheet: _Sheet, node: yaml.Node, index: int, snmp: SnmpAccess, number: int | None, drivers: tuple[Driver, ...]
) -> Switch:
    # The first release misspelt the key, and its files are in the field.
    names = (f"swtich_{index}_address", f"switch_{index}_address", "switch_address", "address")
    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    others = [key for key in keys if isinstance(key, str) and re.fullmatch(r"sw(ti|it)ch_[0-9]{1,9}_address", key)]
    section = _Section(sheet, node, f"switches[{index}]", (*names, *_SWITCH, *others))
    found = [name for name in section.nodes if name not in _SWITCH]
    if found and found[0] not in names:
        sheet.wrong(section.key(found[0]), f"this is switch {index}, counted from 0; expected {names[0]}, or address")
    for extra in found[1:]:
        sheet.wrong(section.key(extra), f"is a second address; the first is {found[0]}")
    address = section.required(found[0] if found else names[0], _address, "the switch's address, like 172.30.4.254")
    if address is not None:
        sheet.places[section.path] = sheet.places[section.key(found[0])]
    name = section.value("name", _SWITCH_NAME, "")
    own = f"PIMAN_SNMP_{_variable_name(index, name)}_"
    access = section.section("snmp", _SNMP, own)
    rows = [*(row.name for row in (*drivers, *DRIVERS)), "standard"]
    driver = section.value("driver", _choice("auto", "snmp", *rows, *HOW), "auto")
    return Switch(
        index=index,
        address=address or IPv4Address(0),
        name=name,
        pi_addresses=tuple(section.read(given, _address, None) for given in section.items("pi_addresses")),
        snmp=_read_access(access, snmp, number),
        off_time=section.value("off_time", _number(0.5, 300, " of seconds"), 5.0),
        power_budget=section.value("power_budget", _number(1, 100_000, " of watts"), 0.0),
        protected_ports=frozenset().union(*section.values("protected_ports", _ports)),
        driver="auto" if driver == "snmp" else driver,
        commands=_read_commands(section, driver),
        controller=_read_controller(section, driver, address),
    )


def _read_commands(switch: _Section, driver: str) -> Commands | None:
    """The section `exec:`, which belongs to that driver, as that driver needs it."""
    section = switch.section("exec", _EXEC)
    if driver != "exec":
        if "exec" in switch.nodes:
            switch.sheet.wrong(switch.key("exec"), "is there, but the driver is another; add `driver: exec`")
        return None
    if "exec" not in switch.nodes:
        switch.sheet.wrong(switch.key("driver"), "exec needs the section `exec:` with on, off, status and ports")
        return None
    ports = section.required("ports", _whole(1, 1024), "how many ports there are")
    read = {}
    for name in ("on", "off", "status"):
        read[name] = section.required(name, _command, "a command, like `ssh poe@{address} poe {port} on`") or ""
        if read[name] and "{port}" not in read[name] and ports != 1:
            section.sheet.wrong(section.key(name), "has no {port} in it, so it would do all ports")
    return Commands(**read, ports=ports or 1, timeout=section.value("timeout", _number(1, 600, " of seconds"), 30.0))


def _read_controller(switch: _Section, driver: str, address: IPv4Address | None) -> Controller | None:
    """The section `unifi:` or `routeros:`, of which the driver's own is read."""
    for name in ("unifi", "routeros"):
        if name in switch.nodes and name != driver:
            switch.sheet.wrong(switch.key(name), f"is there, but the driver is another; add `driver: {name}`")
    if driver not in ("unifi", "routeros"):
        return None
    section = switch.section(driver, _CONTROLLER)
    if driver == "unifi" and "unifi" not in switch.nodes:
        switch.sheet.wrong(switch.key("driver"), "unifi needs the section `unifi:` with the controller's `server:`")
        url = ""
    elif driver == "unifi":
        url = section.required("server", _base_url, "the controller's address, like https://172.30.4.2:8443") or ""
    else:
        url = section.value("server", _base_url, f"https://{address}")
    return Controller(
        url=url,
        user=section.value("user", _USER, "piman"),
        site=section.value("site", _SITE, "default"),
        fingerprint=section.value("fingerprint", _fingerprint, ""),
    )


def _with_password(switch: Switch, passwords: Mapping[str, str]) -> Switch:
    """A controller's password is in .env, as all secrets are."""
    if switch.controller is None:
        return switch
    return replace(switch, controller=replace(switch.controller, password=passwords[f"{switch.driver}_password"]))


# ------------------------------------------------------------------------------------- what the values say together


def _check_network(sheet: _Sheet, config: Config) -> None:
    _check_inside(sheet, "server_address", config.server_address, config.network)
    if config.router is not None:
        _check_inside(sheet, "router", config.router, config.network)
    addresses: dict[IPv4Address, str] = {}
    names: dict[str, str] = {}
    for switch in config.switches:
        key = f"switches[{switch.index}]"
        if key in sheet.places:  # else its address had a problem of its own
            _check_inside(sheet, key, switch.address, *config.networks)
            if switch.address == config.server_address:
                sheet.wrong(key, f"{switch.address} is the server_address")
            twin = addresses.setdefault(switch.address, key)
            if twin != key:
                sheet.wrong(key, f"{switch.address} is already the address of {twin}{_line(sheet, twin)}")
        if switch.name and names.setdefault(switch.name.lower(), key) != key:
            sheet.wrong(f"{key}.name", f"{switch.name} is already the name of {names[switch.name.lower()]}")


def _check_inside(sheet: _Sheet, key: str, address: IPv4Address, *networks: IPv4Network) -> None:
    network = next((each for each in networks if address in each), None)
    if network is None:
        which = "give an address of that network" if len(networks) == 1 else "give an address of one of these networks"
        sheet.wrong(key, f"{address} is outside {', '.join(map(str, networks))}; {which}")
    elif address == network.broadcast_address:
        sheet.wrong(key, f"{address} is the broadcast address of {network}")
    elif address == network.network_address:
        sheet.wrong(key, f"{address} is {network} itself; give the address of a machine")


def _check_subnets(sheet: _Sheet, config: Config, subnets: Mapping[str, Subnet]) -> None:
    seen: list[tuple[IPv4Network, str]] = [(config.network, "the network of server_address")]
    for key, subnet in subnets.items():
        _check_inside(sheet, f"{key}.router", subnet.router, subnet.network)
        for network, words in seen:
            if network.overlaps(subnet.network):
                sheet.wrong(f"{key}.network", f"{subnet.network} overlaps {network}, {words}")
        seen.append((subnet.network, key))
    if subnets and config.dhcp_mode == "proxy":
        sheet.wrong("subnets", "dhcp_mode proxy gives no addresses; remove these, or set server")


def _check_pools(sheet: _Sheet, config: Config, subnets: Mapping[str, Subnet]) -> None:
    pools = [("pool", config.pool, config.network)]
    pools += [(f"{key}.pool", subnet.pool, subnet.network) for key, subnet in subnets.items()]
    held = _holders(config) | {address: key for key, address in _pis(config)}
    for key, pool, network in pools:
        if pool is None:
            continue
        for end in pool:
            _check_inside(sheet, key, end, network)
        inside = next((address for address in held if pool[0] <= address <= pool[1]), None)
        if inside is not None:
            place = f"{held[inside]}{_line(sheet, held[inside])}"
            sheet.wrong(key, f"has {inside} in it, which is {place}; give the pool addresses that nobody has")
    if config.unknown_pis == "pool" and config.dhcp_mode == "proxy":
        sheet.wrong("unknown_pis", "found 'pool', but dhcp_mode proxy gives no addresses; use ignore or approve")
    elif config.unknown_pis == "pool" and not any(pool for _, pool, _ in pools):
        sheet.wrong("unknown_pis", "found 'pool', but there is no `pool:`; add one, like 172.30.4.100-172.30.4.150")


def _check_pis(sheet: _Sheet, config: Config) -> None:
    holders = _holders(config)
    for key, address in _pis(config):
        _check_inside(sheet, key, address, *config.networks)
        first = holders.setdefault(address, key)
        if first != key:
            sheet.wrong(key, f"{address} is already {first}{_line(sheet, first)}; give each Pi its own")


def _holders(config: Config) -> dict[IPv4Address, str]:
    """The addresses that are not for Pis, and the key that says so."""
    held = {switch.address: f"switches[{switch.index}]" for switch in reversed(config.switches)}
    held |= {subnet.router: "the router of a subnet" for subnet in config.subnets}
    if config.router is not None:
        held[config.router] = "router"
    held[config.server_address] = "server_address"
    return held


def _pis(config: Config) -> list[tuple[str, IPv4Address]]:
    return [
        (f"switches[{switch.index}].pi_addresses[{i}]", address)
        for switch in config.switches
        for i, address in enumerate(switch.pi_addresses)
        if address is not None
    ]


def _line(sheet: _Sheet, key: str) -> str:
    """` (line 7)`, for a value that stands in config.yaml."""
    place = sheet.places.get(key)
    return f" (line {place.line})" if place is not None and place.line else ""
