#!/usr/bin/env python3
"""The commands, and `build()`, which joins the parts: the only file that knows every package.

Imports of the parts are inside the commands that need them, so that `piman --help` and shell completion are quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from utility.service import Report, Severity, Stage

if TYPE_CHECKING:
    from dhcp.policy import DhcpPolicy
    from dhcp.proxy import ProxyPolicy
    from lab.rack import Rack, SwitchPlan
    from monitoring.directory import Directory, Roster
    from monitoring.store import Event, PiRow, Store
    from utility.config import Config, Switch
    from utility.findport import Sighting
    from utility.hosts import Host, Hosts
    from utility.service import Service

log = logging.getLogger("piman")
HERE = Path(__file__).resolve().parent

VERSION = "0.1.0"  # as in pyproject.toml
FAILED, USAGE, PARTLY, TIMED_OUT = 1, 2, 3, 4  # exit codes; 0 is done


class Failure(click.ClickException):
    """An error a user can cause: one message, an exit code, no traceback."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.code = exit_code


# ---------------------------------------------------------------------------------------------------- what is loaded


@dataclasses.dataclass
class Session:
    """What the options before the command say; files are read when a command first asks for them."""

    config_path: Path
    hosts_path: Path | None
    env_path: Path | None
    level: int

    def config(self) -> Config:
        from utility.config import ConfigError, load_config

        try:
            return load_config(self.config_path, self.env_path)
        except ConfigError as error:
            raise Failure(f"{error}\nnothing was started", USAGE) from None

    def hosts(self, config: Config, write: bool = False) -> Hosts:
        from utility.config import ConfigError
        from utility.hosts import Hosts

        path = self.hosts_path or config.path.parent / "hosts.csv"
        try:
            return Hosts.open(path, config, write=write)
        except ConfigError as error:
            raise Failure(f"{error}\nnothing was started", USAGE) from None

    def roster(self, config: Config) -> Roster:
        """hosts.csv and the Pis of the pool, as far as a server has seen them."""
        from monitoring.directory import Roster

        hosts = self.hosts(config)
        if not (config.state_dir / "piman.db").exists():
            return Roster(hosts, ())
        with self.store(config) as store:
            return Roster(hosts, store.pis())

    @contextlib.contextmanager
    def store(self, config: Config, read_only: bool = True) -> Iterator[Store]:
        from monitoring.store import Store, StoreError

        path = config.state_dir / "piman.db"
        try:
            if read_only and not path.exists():
                raise Failure(f"{path} does not exist: the server has not run yet; start it with `piman server`")
            if not read_only:
                config.state_dir.mkdir(parents=True, exist_ok=True)
            store = Store(path, read_only=read_only)
        except (StoreError, OSError) as error:
            raise Failure(str(error)) from None
        try:
            yield store
        except StoreError as error:
            raise Failure(str(error)) from None
        finally:
            store.close()


# ---------------------------------------------------------------------------------------------------- the server


def render_boot_text(config: Config) -> Callable[[str, Host | None], bytes | None]:
    """Boot files that differ from Pi to Pi: cmdline.txt, with our address and the Pi's own name filled in."""

    def render(name: str, host: Host | None) -> bytes | None:
        if name != "cmdline.txt":
            return None
        try:
            text = (config.boot_dir / name).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
        fields = {
            "server_address": str(config.server_address),
            "hostname": host.hostname if host else "",
            "address": str(host.address) if host else "",
            "mac": host.mac if host else "",
        }
        for key, value in fields.items():
            text = text.replace(f"{{{key}}}", value)
        if config.ports.hello != 3333:  # the installer's default
            text = f"{text.rstrip()} hello_port={config.ports.hello}\n"
        return text.encode(errors="surrogateescape")

    return render


def bind(what: str, ports: Sequence[int], make: Callable[[], Service]) -> Service:
    """Make a service; a port it cannot have is a Failure that says which port, who holds it and what to do."""
    from utility.service import port_holder

    try:
        return make()
    except PermissionError:
        hint = "run it with sudo, or under systemd with piman.service"
        raise Failure(f"{what}: port {ports[0]} needs privileges we do not have; {hint}") from None
    except OSError as error:
        holders = [(port, holder) for port in ports if (holder := port_holder(port))]
        held = [f"port {port} is held by {holder}; stop it, or change `ports:`" for port, holder in holders]
        raise Failure(f"{what}: {', '.join(held) or error.strerror or error}") from None


def gets_firmware(config: Config, host: Host | None) -> bool:
    """Whether this Pi may fetch the files by which it rewrites its EEPROM."""
    allowed = config.serve_firmware_updates
    if isinstance(allowed, bool):
        return allowed
    return host is not None and (host.mac in allowed or host.hostname.lower() in allowed)


def dhcp_policy(config: Config, hosts: Hosts, who: Directory) -> DhcpPolicy | ProxyPolicy:
    """DHCP's decisions, in the mode that config.yaml says; `who` learns of its leases."""
    from dhcp.policy import DhcpPolicy
    from dhcp.proxy import ProxyPolicy
    from dhcp.replies import DhcpSettings, Subnet

    settings = DhcpSettings(
        server=config.server_address,
        network=config.network,
        lease_time=config.lease_time,
        router=config.router,
        dns=config.dns,
        domain=config.domain,
        ntp_servers=config.ntp_servers,
        pool=config.pool,
        subnets=tuple(Subnet(**dataclasses.asdict(each)) for each in config.subnets),
        unknown_pis=config.unknown_pis,
        reply_delay=config.reply_delay,
        reserved=config.taken,
    )
    policy: DhcpPolicy | ProxyPolicy
    if config.dhcp_mode == "proxy":
        policy = ProxyPolicy(settings, hosts.find)
    else:
        leases = [(lease.mac, lease.address, lease.expires) for lease in who.leases]
        policy = DhcpPolicy(settings, hosts.find, hosts.by_address, leases, epoch=time.time() - time.monotonic())
    who.host_of_lease = policy.host_of_lease
    return policy


def build(config: Config, hosts: Hosts, store: Store) -> list[Service]:
    """Every service, its sockets bound, joined to the hosts, the board and the orders. Raises Failure."""
    from dhcp.server import DhcpServer
    from monitoring.directory import Directory
    from monitoring.fleet import Fleet
    from monitoring.store import StoreError
    from monitoring.upkeep import PowerRestorer, Upkeep
    from ntp.policy import NtpPolicy, RateLimit
    from ntp.server import NtpServer
    from tcp.image import ImageFile
    from tcp.server import HelloServer, Installs
    from tftp.files import BootFiles
    from tftp.server import TftpServer

    ports = config.ports
    address = config.server_address
    image = ImageFile(config.image, config.state_dir)
    limit = RateLimit(interval=config.ntp_rate_limit) if config.ntp_rate_limit else None
    who = Directory(hosts, store, config.dhcp_mode == "proxy")
    policy = dhcp_policy(config, hosts, who)
    fleet = Fleet(store, who.find, time.time)
    files = BootFiles(
        config.boot_dir, render_boot_text(config), firmware_updates=lambda host: gets_firmware(config, host)
    )

    def report(seen: Report) -> None:
        if seen.heard:
            hosts.seen(seen.mac, time.time())
        fleet.report(seen)

    def complete(mac: str, token: str) -> bool:
        try:
            store.complete_order(mac, token)  # False is no failure: it was cancelled or replaced meanwhile
        except StoreError as error:
            log.warning("%s", error)
            return False
        return True

    installs = Installs(
        host_of=who.by_address,
        image_for=lambda _host: image.current(),
        pending=store.pending_order,
        complete=complete,
        now=lambda: datetime.now(UTC),
    )
    makers: dict[str, tuple[Sequence[int], Callable[[], Service]]] = {
        "dhcp": (
            [ports.dhcp],
            lambda: DhcpServer(config.interface, policy, report, ports.dhcp, who.save_lease, who.forget_lease),
        ),
        "tftp": (
            [ports.tftp],
            lambda: TftpServer(address, ports.tftp, files, who.by_address, report, record=fleet.record_file),
        ),
        "hello": ([ports.hello, ports.image], lambda: HelloServer(address, ports.hello, ports.image, installs, report)),
        "ntp": (
            [ports.ntp],
            lambda: NtpServer(
                address, ports.ntp, NtpPolicy(limit), who.by_address, report, local_stratum=config.local_stratum
            ),
        ),
    }
    services = [bind(name, *makers[name]) for name in config.services if name in makers]
    return [*services, PowerRestorer(config, store), Upkeep(fleet, hosts, store)]


def log_to(folder: Path, level: int) -> None:
    """Log to the terminal (or journald) and to a new file `YEAR-MONTH-DATE_hour:minutes.log` in the folder."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started = datetime.now().astimezone().strftime("%Y-%m-%d_%H:%M")
        names = (
            folder / f"{started}{again}.log"
            for again in itertools.chain([""], (f".{number}" for number in itertools.count(2)))
        )
        handlers.append(logging.FileHandler(next(name for name in names if not name.exists())))
    except OSError as error:
        raise Failure(f"{folder}: no log can be written there: {error.strerror}") from None
    logging.basicConfig(level=level, handlers=handlers, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")


def raise_file_limit() -> None:
    """Allow as many open files as we may have: a TFTP transfer has two, and a class switches on all at once."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def only_server(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for one server; a second one gets a Failure that names the first."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "server.pid").open("a+")
    except OSError as error:
        raise Failure(f"{state_dir}: the state cannot be written there: {error.strerror}") from None
    with lock:
        for _try in range(6):  # `server_runs` holds it for a moment
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        else:
            lock.seek(0)
            raise Failure(f"a server runs already (process {lock.read().strip()}) with {state_dir}")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def server_runs(state_dir: Path) -> bool:
    """Whether a server holds the state folder now."""
    try:
        with (state_dir / "server.pid").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# -------------------------------------------------------------------------------------------- naming Pis and ports


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A port that a command acts on, and the Pi that config.yaml and hosts.csv say is there."""

    switch: Switch
    port: int
    host: Host | None

    @property
    def label(self) -> str:
        where = f"{self.switch.name or self.switch.address} port {self.port}"
        return f"{self.host.name} ({where})" if self.host else where


def known_switches(config: Config) -> str:
    if not config.switches:
        return "config.yaml has no switches"
    return "known: " + ", ".join(f"{each.index} ({each.name or each.address})" for each in config.switches)


def find_switch(config: Config, text: str) -> Switch | None:
    """A switch by its address, its name, or its number in config.yaml (0 first)."""
    for switch in config.switches:
        if text in (str(switch.address), switch.name, str(switch.index)):
            return switch
    return None


def parse_ports(words: Iterable[str]) -> list[int] | None:
    """`2 3`, `1-6,8` -> ports in the order given, each once; None where a word is no list of ports."""
    ports: dict[int, None] = {}
    for piece in ",".join(words).split(","):
        first, dash, last = piece.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 8:
            return None
        low, high = int(first), int(last or first)
        if not 1 <= low <= high:
            return None
        ports.update(dict.fromkeys(range(low, high + 1)))
    return list(ports)


def host_on(switch: Switch, port: int, hosts: Hosts | Roster) -> Host | None:
    """The Pi that belongs on a port: config.yaml names its address, hosts.csv the Pi with that address."""
    if not 1 <= port <= len(switch.pi_addresses):
        return None
    address = switch.pi_addresses[port - 1]
    return hosts.by_address(address) if address else None


def place_of(config: Config, host: Host) -> tuple[Switch, int] | None:
    """The port where config.yaml says a Pi is."""
    for switch in config.switches:
        if host.address in switch.pi_addresses:
            return switch, switch.pi_addresses.index(host.address) + 1
    return None


def resolve(config: Config, hosts: Hosts | Roster, words: Sequence[str]) -> list[Target]:
    """`SWITCH PORTS...` or Pis by hostname, address or MAC -> targets; Failure says what is known instead."""
    switch = find_switch(config, words[0])
    if switch and len(words) > 1:
        ports = parse_ports(words[1:])
        if ports is None:
            raise click.UsageError(f"{' '.join(words[1:])!r} is no list of ports; write it like: 2 3 4  or: 1-6,8")
        return [Target(switch, port, host_on(switch, port, hosts)) for port in ports]
    if switch:
        raise click.UsageError(f"which ports of switch {words[0]}? write them like: 2 3 4  or: 1-6,8")
    if len(words) > 1 and parse_ports(words[1:]) is not None and hosts.named(words[0]) is None:
        raise Failure(f"there is no switch {words[0]!r}; {known_switches(config)}")
    return [resolve_pi(config, hosts, word) for word in words]


def find_host(hosts: Hosts | Roster, word: str) -> Host:
    host = hosts.named(word)
    if host is None:
        names = [each.name for each in hosts.all()]
        known = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise Failure(f"there is no Pi {word!r} in hosts.csv; known: {known or 'none'}")
    return host


def resolve_pi(config: Config, hosts: Hosts | Roster, word: str) -> Target:
    """One Pi by hostname, address or MAC; where config.yaml does not place it, the switches are asked."""
    host = find_host(hosts, word)
    placed = place_of(config, host)
    if placed:
        return Target(placed[0], placed[1], host)
    from utility.findport import choose_edge

    sightings = look_for(config.switches, host.mac, host)
    edge = choose_edge(sightings)
    if edge is None:
        seen = "no switch has seen it" if not sightings else "it is seen behind other switches or on several ports"
        raise Failure(f"{host.name}: config.yaml names no port for {host.address}, and {seen}; name switch and port")
    return Target(edge.switch, edge.port, host)


# ---------------------------------------------------------------------------------------------------- the commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PIMAN"})
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("config.yaml"),
    envvar="PIMAN_CONFIG",
    show_default=True,
    help="The rack: network, switches, which Pi is on which port.",
)
@click.option(
    "--hosts",
    "hosts_path",
    type=click.Path(path_type=Path),
    envvar="PIMAN_HOSTS",
    help="The Pis.  [default: hosts.csv beside the config]",
)
@click.option(
    "--env",
    "env_path",
    type=click.Path(path_type=Path),
    envvar="PIMAN_ENV",
    help="Secrets and overrides.  [default: .env beside the config]",
)
@click.option("-v", "--verbose", is_flag=True, help="Log every packet.")
@click.option("-q", "--quiet", is_flag=True, help="Log only what needs attention.")
@click.option("--lab", "in_lab", is_flag=True, help="Work on the virtual rack that `piman lab` runs.")
@click.version_option(VERSION, message="piman %(version)s")
@click.pass_context
def cli(
    context: click.Context,
    config_path: Path,
    hosts_path: Path | None,
    env_path: Path | None,
    verbose: bool,
    quiet: bool,
    in_lab: bool,
) -> None:
    """Boots, installs, powers and watches racks of Raspberry Pis on PoE switches."""
    if in_lab:
        enter_lab()
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    context.obj = Session(config_path, hosts_path, env_path, level)


def enter_lab() -> NoReturn:
    """Run this same command line, without --lab, in the running lab's namespaces, with its config.yaml."""
    from lab.namespaces import LabError, exec_in

    directory = lab_directory()
    words = [each for each in sys.argv[1:] if each != "--lab"]
    try:
        exec_in(directory, [*this_program(), "--config", str(directory / "config.yaml"), *words])
    except LabError as error:
        raise Failure(str(error)) from None


@cli.command()
@click.pass_obj
def server(session: Session) -> None:
    """Run everything: DHCP, TFTP, the installer's protocol, NTP."""
    from monitoring.upkeep import Upkeep
    from utility.service import notify_systemd, run_services

    config = session.config()
    session.hosts(config)  # its mistakes are told before anything is written
    with only_server(config.state_dir), session.store(config, read_only=False) as store:
        log_to(config.log_dir, session.level)
        hosts = session.hosts(config, write=True)
        raise_file_limit()
        services = build(config, hosts, store)
        upkeep = services[-1]
        assert isinstance(upkeep, Upkeep)

        def ready() -> None:
            notify_systemd("READY=1")
            log.info("ready: %s on %s (%s)", ", ".join(config.services), config.server_address, config.interface)

        failure = run_services(services, upkeep.reload, ready)
        notify_systemd("STOPPING=1")
        if failure:
            raise Failure(failure)
        log.info("stopped")


def cycle_switch(store: Store, targets: Sequence[Target]) -> list[tuple[Target, bool, str]]:
    """Power-cycle ports of one switch -> whether each was done, and words; a switch that fails fails them all."""
    from monitoring.power import PowerIntents, hold_switch
    from monitoring.store import StoreError
    from utility.power_cycle import power_cycle
    from utility.switches import SwitchError, open_switch

    switch, by_port = targets[0].switch, {target.port: target for target in targets}

    def tell(port: int, text: str) -> None:
        target = by_port[port]
        click.echo(f"{target.label}: {text}")
        if target.host and text == "on":
            with contextlib.suppress(StoreError):  # it only dates what the Pi does next
                store.add_power_on(target.host.mac, time.time())

    try:
        with hold_switch(store, switch), open_switch(switch) as poe:
            results = power_cycle(poe, list(by_port), on_progress=tell, intents=PowerIntents(store, switch))
    except SwitchError as error:
        return [(target, False, str(error)) for target in targets]
    return [(by_port[result.port], result.ok, result.text) for result in results]


def cycle(store: Store, targets: Sequence[Target]) -> list[Target]:
    """Power-cycle all targets, switches in parallel, telling each step; returns those that failed."""
    from concurrent.futures import ThreadPoolExecutor

    by_switch: dict[int, list[Target]] = {}
    for target in targets:
        by_switch.setdefault(target.switch.index, []).append(target)
    with ThreadPoolExecutor(len(by_switch)) as pool:
        done = [
            each for group in pool.map(lambda group: cycle_switch(store, group), by_switch.values()) for each in group
        ]
    for target, ok, text in done:
        click.echo(f"{target.label}: {text}", err=not ok)
        if target.host:
            severity, event = (Severity.INFO, text) if ok else (Severity.ERROR, f"not power-cycled: {text}")
            store.add_event(target.host.mac, time.time(), severity, event)
    return [target for target, ok, _text in done if not ok]


def finish(total: int, failed: int, what: str) -> None:
    """End the command with the exit code of `failed` of `total`."""
    if failed:
        raise Failure(f"{failed} of {total} {what}", FAILED if failed == total else PARTLY)


@cli.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.pass_obj
def restart(session: Session, targets: tuple[str, ...]) -> None:
    """Power-cycle ports (`restart 0 2 3 4`, `restart 0 1-6,8`) or Pis (`restart pi3 pi4`)."""
    config = session.config()
    chosen = resolve(config, session.roster(config), targets)
    with session.store(config, read_only=False) as store:
        failed = cycle(store, chosen)
    finish(len(chosen), len(failed), "ports were not restarted")


@cli.command()
@click.argument("targets", nargs=-1, required=True, metavar="SWITCH PORTS... | PI...")
@click.option("--wait", is_flag=True, help="Show each Pi's progress until it is up.")
@click.option("--timeout", type=float, default=900.0, show_default=True, help="Seconds to wait, with --wait.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reinstall(session: Session, targets: tuple[str, ...], wait: bool, timeout: float, yes: bool) -> None:
    """Format the cards of exactly these Pis and install them anew, then power-cycle them."""
    config = session.config()
    chosen = resolve(config, session.roster(config), targets)
    nameless = [target.label for target in chosen if target.host is None]
    if nameless:
        raise Failure(f"{', '.join(nameless)}: config.yaml and hosts.csv name no Pi there, so none can be reinstalled")
    if not yes and sys.stdin.isatty():
        click.confirm(f"Erase the cards of {', '.join(t.label for t in chosen)} and install them anew?", abort=True)
    if not server_runs(config.state_dir):
        raise Failure("no server runs, so nobody would install them; start it with `piman server`")
    by = os.environ.get("SUDO_USER") or whoami()
    with session.store(config, read_only=False) as store:
        began = time.time()
        macs = [target.host.mac for target in chosen if target.host]
        orders: dict[str, str] = {}
        try:
            for mac in macs:
                orders[mac] = store.order_install(mac, time.time(), by)
                store.add_event(mac, time.time(), Severity.INFO, f"reinstall ordered by {by}")
            failed = cycle(store, chosen)
        except BaseException:  # Ctrl-C among them: nobody knows which Pis boot now, so none is to be formatted
            cancel(store, orders)
            raise
        # A Pi that was not power-cycled must not be formatted at some later reboot.
        cancel(store, {target.host.mac: orders[target.host.mac] for target in failed if target.host})
        going = [target.host for target in chosen if target.host and target not in failed]
        late, broken = wait_for_install(store, going, orders, began, timeout) if wait else ([], [])
    if late:
        raise Failure(f"not up after {timeout:g} s: {', '.join(host.name for host in late)}", TIMED_OUT)
    finish(len(chosen), len(failed) + len(broken), "Pis were not reinstalled")


def cancel(store: Store, orders: Mapping[str, str]) -> None:
    """Take back orders, unless they were carried out or replaced meanwhile."""
    for mac, token in orders.items():
        if store.complete_order(mac, token):
            store.add_event(mac, time.time(), Severity.ERROR, "reinstall cancelled: no power cycle")


def wait_for_install(
    store: Store, hosts: Sequence[Host], orders: dict[str, str], began: float, timeout: float
) -> tuple[list[Host], list[Host]]:
    """Show the Pis' progress until each is up or failed -> those that took too long, those that failed."""
    deadline = time.monotonic() + timeout
    waiting = list(hosts)
    broken: list[Host] = []
    screen = Screen()
    while waiting and time.monotonic() < deadline:
        rows = {row.mac: row for row in store.pis() if row.since >= began}
        ordered = {order.mac: order.token for order in store.orders()}
        for host in list(waiting):
            row = rows.get(host.mac)
            if row and row.stage == Stage.FAILED:
                broken.append(host)
                waiting.remove(host)
            elif row and row.stage == Stage.UP and ordered.get(host.mac) != orders[host.mac]:
                waiting.remove(host)
        screen.show_progress(hosts, rows)
        time.sleep(0.5)
    return waiting, broken


class Screen:
    """What is drawn over on a terminal; elsewhere a line for each Pi that reaches a new stage."""

    def __init__(self) -> None:
        self._drawn = 0
        self._told: dict[str, str] = {}
        self.terminal = sys.stdout.isatty()

    def draw(self, lines: Sequence[str]) -> None:
        if self._drawn and self.terminal:
            click.echo(f"\x1b[{self._drawn}F\x1b[J", nl=False)
        if self.terminal:  # a line that wraps would be two to go up over, and one above the top is out of reach
            width, height = shutil.get_terminal_size()
            lines = [line[:width] for line in lines[: height - 1]]
        click.echo("\n".join(lines))
        self._drawn = len(lines)

    def show_progress(self, hosts: Sequence[Host], rows: Mapping[str, PiRow]) -> None:
        from monitoring.table import progress_line

        if self.terminal:
            self.draw([progress_line(host.name, rows.get(host.mac)) for host in hosts])
            return
        for host in hosts:
            row = rows.get(host.mac)
            stage = f"{row.stage}{row.stuck}" if row else ""
            if self._told.get(host.mac, "") != stage:
                click.echo(progress_line(host.name, row))
            self._told[host.mac] = stage


def look_for(switches: Sequence[Switch], mac: str, host: Host | None, vlan: int | None = None) -> list[Sighting]:
    """Ask all switches which port a MAC is on; a switch that fails is told and does not hide the others' answer."""
    from utility.findport import find_port
    from utility.switches import open_switch

    if host:
        nudge(host)

    def tell(error: Exception) -> None:
        click.echo(f"warning: {error}", err=True)

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_switch(switch)) for switch in switches]
        return find_port(mac, opened, () if vlan is None else (vlan,), on_error=tell)


def nudge(host: Host) -> None:
    """Make a Pi say something, so that the switches have its MAC: they forget who is silent for five minutes."""
    # No route is no error here: then it is not silence that hides it.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(b"", (str(host.address), 9))  # discard, RFC 863; the answer that counts is the ARP reply
        time.sleep(0.2)


@cli.command()
@click.argument("mac")
@click.argument("switch", required=False)
@click.argument("vlan", required=False, type=click.IntRange(1, 4094))
@click.option("--switch", "switch_option", metavar="SWITCH", help="Ask this switch only.")
@click.option("--vlan", "vlan_option", type=click.IntRange(1, 4094), help="Ask for this VLAN only.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def findport(
    session: Session,
    mac: str,
    switch: str | None,
    vlan: int | None,
    switch_option: str | None,
    vlan_option: int | None,
    as_json: bool,
) -> None:
    """Tell which switch and port a MAC (or a Pi of hosts.csv) is on."""
    from utility.hosts import parse_mac

    config = session.config()
    hosts = session.roster(config)
    known = hosts.named(mac)
    try:
        wanted = known.mac if known else parse_mac(mac)
    except ValueError as error:
        raise Failure(f"{error}, or give a Pi of hosts.csv") from None
    switches: Sequence[Switch] = config.switches
    chosen = switch_option or switch
    if chosen:
        found = find_switch(config, chosen)
        if found is None:
            raise Failure(f"there is no switch {chosen!r}; {known_switches(config)}")
        switches = [found]
    sightings = look_for(switches, wanted, known, vlan_option or vlan)
    if as_json:
        click.echo(json.dumps([sighting_json(each) for each in sightings], indent=2))
    for each in () if as_json else sightings:
        where = f"{each.switch.name or each.switch.address}  port {each.port}  {each.if_name}"
        others = f"  ({each.macs_on_port} MACs: perhaps a trunk)" if each.is_trunk else ""
        click.echo(f"{known.name if known else wanted}  {where}{others}")
    if not sightings:
        asked = ", ".join(str(each.address) for each in switches) or "no switch: config.yaml has none"
        raise Failure(f"{wanted} is on no port of {asked}; is the Pi powered, and did it send anything lately?")


def sighting_json(sighting: Sighting) -> dict[str, object]:
    return {
        "switch": str(sighting.switch.address),
        "switch_number": sighting.switch.index,
        "port": sighting.port,
        "if_index": sighting.if_index,
        "if_name": sighting.if_name,
        "macs_on_port": sighting.macs_on_port,
    }


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--watch", is_flag=True, help="Draw again every second, until Ctrl-C.")
@click.pass_obj
def status(session: Session, as_json: bool, watch: bool) -> None:
    """Show every Pi: where it is, its stage, its progress, and when it was last heard."""
    from monitoring.directory import Roster
    from monitoring.table import status_json, status_table

    config = session.config()
    hosts = session.hosts(config)
    screen = Screen()
    with session.store(config) as store:
        while True:
            hosts.check()
            rows, ordered = store.pis(), {order.mac for order in store.orders()}
            pis = Roster(hosts, rows).all()
            places = {host.mac: place_of(config, host) for host in pis}
            where = {mac: (place[0].index, place[1]) for mac, place in places.items() if place}
            if as_json:
                click.echo(json.dumps(status_json(rows, pis, where, ordered), indent=2))
            else:
                table = status_table(rows, pis, where, ordered, time.time())
                running = server_runs(config.state_dir)
                table += [] if running else ["no server runs: this is what was known when it stopped"]
                if watch:
                    screen.draw(table)
                else:
                    click.echo("\n".join(table))
            if not watch:
                return
            time.sleep(1)


@cli.command()
@click.argument("macs", nargs=-1, metavar="MAC...")
@click.option("--all", "every", is_flag=True, help="Every Raspberry Pi that asked for an address and is not known yet.")
@click.option("--name", default="", help="Its hostname.")
@click.option("--address", default="0.0.0.0", show_default=True, help="0.0.0.0: Piman picks a free one.")
@click.pass_obj
def adopt(session: Session, macs: tuple[str, ...], every: bool, name: str, address: str) -> None:
    """Take unknown Pis in: write them into hosts.csv. They get their address when they next ask."""
    config = session.config()
    hosts = session.hosts(config)
    if every:
        with session.store(config) as store:
            strangers = (row for row in store.pis() if not hosts.find(row.mac))
            # What only a Raspberry Pi's boot loader tells of itself, and what the DHCP policy took for one.
            macs += tuple(row.mac for row in strangers if row.facts.keys() & {"waiting", "model", "serial"})
    if not macs:
        raise Failure("nobody waits" if every else "name the MAC to adopt (`piman status` lists those that asked)")
    if len(macs) > 1 and (name or address != "0.0.0.0"):
        raise click.UsageError("--name and --address are for one Pi")
    hosts = session.hosts(config, write=True)
    for mac in macs:
        host = add_host(hosts, mac, name, address)
        click.echo(f"{host.mac} is {host.name} now, with {host.address}")


def add_host(hosts: Hosts, mac: str, name: str, address: str) -> Host:
    """Write one Pi into hosts.csv; every mistake is a Failure in words."""
    from ipaddress import IPv4Address

    from utility.config import ConfigError
    from utility.hosts import parse_mac

    try:
        known = hosts.find(parse_mac(mac))
        if known:
            raise Failure(f"{known.mac} is in hosts.csv already, as {known.name}")
        mac = parse_mac(mac)
        return hosts.add(mac, IPv4Address(address), name or f"pi-{mac.replace(':', '')[-6:]}")
    except ConfigError as error:
        raise Failure(str(error)) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise Failure(f"hosts.csv could not be written: {error.strerror}") from None


@cli.command()
@click.argument("pi", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen, until Ctrl-C.")
@click.option("-n", "--number", type=int, default=50, show_default=True, help="How many of the latest.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one object a line.")
@click.pass_obj
def events(session: Session, pi: str | None, follow: bool, number: int, as_json: bool) -> None:
    """Show the timeline of all Pis, or of one (by hostname, address or MAC)."""
    config = session.config()
    hosts = session.roster(config)
    mac = find_host(hosts, pi).mac if pi else None
    with session.store(config) as store:
        found = store.latest_events(mac, number)
        last = found[-1].id if found else store.last_event_id()
        while True:
            for event in found:
                host = hosts.find(event.mac)
                click.echo(event_line(event, host.name if host else event.mac, as_json))
                last = event.id
            if not follow:
                return
            time.sleep(0.5)
            found = store.events(mac, after=last)


def event_line(event: Event, name: str, as_json: bool) -> str:
    if as_json:
        return json.dumps({**dataclasses.asdict(event), "name": name})
    when = datetime.fromtimestamp(event.when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    mark = "" if event.severity is Severity.INFO else f"{event.severity}: "
    return f"{when}  {name:<12}  {mark}{event.text}"


# ---------------------------------------------------------------------------------------------------- the lab


def lab_directory() -> Path:
    """Where the virtual rack keeps its files: $PIMAN_LAB_DIR, else below the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(os.environ.get("PIMAN_LAB_DIR") or Path(state) / "piman" / "lab").resolve()


def this_program() -> list[str]:
    """The command that runs this program again: the bundle where it is one, else the checkout's piman.py."""
    bundle = os.environ.get("SHIV_ENTRY_POINT") or ""
    started = Path(sys.argv[0]).resolve()
    return [sys.executable, str(started if bundle or started.suffix == ".pyz" else HERE / "piman.py")]


@cli.group(invoke_without_command=True)
@click.pass_context
def lab(context: click.Context) -> None:
    """The virtual rack: a PoE switch and Pis that boot for real, on this machine."""
    if context.invoked_subcommand is None:
        context.invoke(lab_up)


@lab.command(name="up")
@click.option("--pis", type=click.IntRange(1, 48), default=2, show_default=True, help="How many.")
@click.option(
    "--kind",
    type=click.Choice(["qemu", "light", "raspi3b"]),
    default="qemu",
    show_default=True,
    help="Machines in QEMU, the boot ROM alone, or QEMU's own Pi 3 board.",
)
@click.option(
    "--model",
    type=click.Choice(["3b", "3b+", "4", "5", "cm4", "cm5"]),
    default="4",
    show_default=True,
    help="Whose boot ROM.",
)
@click.option("--switches", type=click.IntRange(1, 16), default=1, show_default=True, help="How many, in a chain.")
@click.option("--family", default="standard", show_default=True, help="Which make of switch; `list` lists them.")
@click.option(
    "--switch", "record", type=click.Path(path_type=Path), help="Be the switch that `piman switch record` wrote down."
)
@click.option("--manager/--no-manager", default=True, help="Run `piman server` in it, or leave that to you.")
def lab_up(
    pis: int = 2,
    kind: str = "qemu",
    model: str = "4",
    switches: int = 1,
    family: str = "standard",
    record: Path | None = None,
    manager: bool = True,
) -> None:
    """Build the rack, install its Pis before your eyes, and keep it running until Ctrl-C."""
    from lab.namespaces import LabError, enter, inside
    from lab.rack import Rack, prepare_files, prerequisites

    plans = [switch_plan(family, record)] * switches
    try:
        if not inside():
            need(prerequisites(kind))
            if kind != "light":
                click.echo("Fetching what the Pis boot (the first time only) ...")
                prepare_files()
            enter([*this_program(), *sys.argv[1:]])
        run_lab(Rack(lab_directory(), pis, kind, model, switches=plans, tell=click.echo), manager)
    except LabError as error:
        raise Failure(str(error)) from None


def switch_plan(family: str, record: Path | None) -> SwitchPlan:
    """What the lab's switches shall be; a family or a file that is wrong is a Failure."""
    from lab.families import FAMILIES
    from lab.rack import SwitchPlan
    from lab.replay import RecordError, read_record

    if family not in FAMILIES:
        raise click.UsageError(f"the families are {', '.join(FAMILIES)}")
    try:
        return SwitchPlan(family, record=read_record(record) if record else None)
    except (RecordError, OSError) as error:
        raise Failure(str(error)) from None


@lab.command(name="shell", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def lab_shell(command: tuple[str, ...]) -> None:
    """Run a command (or a shell) where the lab's manager is: `piman lab shell ping 172.30.4.11`."""
    from lab.namespaces import LabError, exec_in

    directory = lab_directory()
    os.environ["PIMAN_CONFIG"] = str(directory / "config.yaml")
    try:
        exec_in(directory, list(command) or [os.environ.get("SHELL", "/bin/sh")])
    except LabError as error:
        raise Failure(str(error)) from None


def whoami() -> str:
    """Who runs this, for the record: a cron job has no USER, and a container's user need not have a name."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def need(packages: Sequence[str]) -> None:
    """See to it that Debian packages are there: installed when we are root, else named in a Failure."""
    import subprocess

    if not (HERE / "install").is_dir():
        raise Failure("the lab needs the folder install/: run it from a checkout or from build/piman.pyz")
    if packages and subprocess.run(["sh", str(HERE / "install" / "need.sh"), *packages], check=False).returncode:
        raise Failure("the lab needs these packages")


LAB_HINTS = """
The rack is up. In another terminal, try:
    {piman} --lab status
    {piman} --lab restart pi1
    {piman} --lab reinstall --wait pi2
    {piman} --lab findport pi1
    {piman} --lab events -f
    {piman} lab shell          # a shell where the manager is: ping, snmpwalk, tcpdump ...
Its files, config.yaml and hosts.csv among them: {directory}
Ctrl-C ends it and cleans everything up."""


def run_lab(rack: Rack, manager: bool) -> None:
    """The inside of `lab up`: the rack, the manager as a process of its own, and a live table until a signal."""
    import subprocess

    from monitoring.table import status_table

    directory, pis = rack.directory, len(rack.pis)

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rack)
        session = Session(directory / "config.yaml", None, None, logging.INFO)
        if not manager:
            rack.start()
            click.echo(f"The rack runs, with no manager. Start one: piman --lab server. Its files: {directory}")
            threading.Event().wait()
        config = session.config()
        process = subprocess.Popen(
            [*this_program(), "--config", str(session.config_path), "server"],
            stdin=subprocess.DEVNULL,
            stdout=(directory / "manager.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while not server_runs(config.state_dir) or not (config.state_dir / "piman.db").exists():
            if process.poll() is not None:
                raise Failure(f"the manager did not start: {(directory / 'manager.log').read_text().strip()}")
            time.sleep(0.05)
        rack.start()
        hosts = session.hosts(config)
        where = {pi.mac: (rack.switches.index(rack.switch_of(pi)), pi.port) for pi in rack.pis}
        screen, hinted = Screen(), False
        store = stack.enter_context(session.store(config))
        while process.poll() is None:
            rows = store.pis()
            all_up = sum(row.stage == Stage.UP for row in rows) == pis
            hints = LAB_HINTS.format(piman=sys.argv[0], directory=directory)
            if screen.terminal:
                table = status_table(rows, hosts.all(), where, {order.mac for order in store.orders()}, time.time())
                screen.draw([*table, *(hints.splitlines() if hinted or all_up else [])])
            else:
                screen.show_progress(hosts.all(), {row.mac: row for row in rows})
                if all_up and not hinted:
                    click.echo(hints)
            hinted = hinted or all_up
            time.sleep(0.5)
        raise Failure(f"the manager ended; see {directory / 'manager.log'}")


def main() -> None:
    """The entry point: whatever a user can cause ends in one message and an exit code, never in a traceback."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)  # so that `restart` turns a port on again before it goes
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.code if isinstance(error, Failure) else error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `piman events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
