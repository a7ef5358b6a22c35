"""`piman server` and the assembly of all its parts: the only file that knows every package.

Imports of the parts are inside the functions that need them, so that a service that does not run costs nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import logging
import resource
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.session import VERSION, Failure, Session

if TYPE_CHECKING:
    from dhcp.policy import DhcpPolicy
    from dhcp.proxy import ProxyPolicy
    from monitoring.directory import Directory
    from monitoring.store import Store
    from monitoring.upkeep import Upkeep
    from monitoring.watching import Watching
    from utility.config import Config, Switch
    from utility.hosts import Host, Hosts
    from utility.service import Report, Service, Services
    from web.backend import Backend

log = logging.getLogger("piman")


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


def dhcp_needs(config: Config) -> tuple[object, ...]:
    """All that DHCP's decisions are made of."""
    return (
        config.server_address, config.network, config.lease_time, config.router, config.dns, config.domain,
        config.ntp_servers, config.pool, config.subnets, config.unknown_pis, config.reply_delay, config.taken,
        config.dhcp_mode,
    )  # fmt: skip


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


@dataclasses.dataclass(frozen=True)
class Part:
    """One service: what it is made of (if that changes, it is made anew), its ports, and how it is made."""

    needs: tuple[object, ...]
    ports: Sequence[int]
    make: Callable[[], Service]


class Assembly:
    """The services, joined to the hosts, the board and the orders; and made anew where config.yaml changes.

    For the main thread. What the threads read of it are whole objects that are replaced: `config` and `policy`.
    """

    def __init__(self, session: Session, config: Config, hosts: Hosts, store: Store) -> None:
        from monitoring.directory import Directory
        from monitoring.fleet import Fleet

        self.session, self.config, self.hosts, self.store = session, config, hosts, store
        self.who = Directory(hosts, store, config.dhcp_mode == "proxy")
        self._policy = self._policy_of(config)
        self.fleet = Fleet(store, self.who.find, time.time)  # after the policy, which knows the names of the pool's Pis
        self.services: dict[str, Service] = {}
        self._parts = self.parts(config)

    def _policy_of(self, config: Config) -> DhcpPolicy | ProxyPolicy:
        """DHCP's decisions; those who ask for the pool's Pis ask it, also where DHCP itself does not run."""
        return dhcp_policy(config, self.hosts, self.who)

    def build(self) -> list[Service]:
        """Every service, its sockets bound. Raises Failure."""
        self.services = {name: bind(name, part.ports, part.make) for name, part in self._parts.items()}
        return list(self.services.values())

    @property
    def upkeep(self) -> Upkeep:
        """The clockwork, which is never made anew."""
        from monitoring.upkeep import Upkeep

        upkeep = self.services["upkeep"]
        assert isinstance(upkeep, Upkeep)
        return upkeep

    def report(self, seen: Report, when: float | None = None) -> None:
        """Let hosts.csv and the board know what a service saw, now or at that Unix time."""
        if seen.heard:
            self.hosts.seen(seen.mac, when or time.time())
        self.fleet.report(seen, when)

    def parts(self, config: Config) -> dict[str, Part]:
        """The services that a configuration wants, in the order in which they bind."""
        from monitoring.places import PlaceWatch
        from monitoring.upkeep import PowerRestorer, Upkeep

        known = {
            "dhcp": self._dhcp,
            "tftp": self._tftp,
            "hello": self._hello,
            "ntp": self._ntp,
            "web": self._web,
            "monitoring": self._monitoring,
        }
        parts = {name: known[name](config) for name in config.services if name in known}
        parts["power"] = Part((config.switches,), [], lambda: PowerRestorer(config, self.store))
        parts["places"] = Part((config.switches,), [], lambda: PlaceWatch(config, self._macs, self.store, self._placed))
        parts["upkeep"] = Part((), [], lambda: Upkeep(self.fleet, self.hosts, self.store))
        return parts

    def _placed(self, mac: str) -> tuple[Switch, int] | None:
        from monitoring.directory import place_of

        host = self.who.find(mac)
        return place_of(self.config, host) if host else None

    def _macs(self) -> set[str]:
        """Every Pi, and every stranger on the board."""
        return {host.mac for host in self.hosts.all()} | {row.mac for row in self.fleet.snapshot()}

    def _dhcp(self, config: Config) -> Part:
        from dhcp.server import DhcpServer

        def make() -> Service:
            who, policy = self.who, self._policy
            return DhcpServer(
                config.interface,
                policy,
                self.report,
                config.ports.dhcp,
                report_late=self.report,
                save_lease=who.save_lease,
                forget_lease=who.forget_lease,
            )

        return Part((config.interface, config.ports.dhcp, *dhcp_needs(config)), [config.ports.dhcp], make)

    def _tftp(self, config: Config) -> Part:
        from tftp.files import BootFiles
        from tftp.server import TftpServer

        def make() -> Service:
            files = BootFiles(
                config.boot_dir, render_boot_text(config), firmware_updates=lambda host: gets_firmware(config, host)
            )
            record = self.fleet.record_file
            port = config.ports.tftp
            return TftpServer(config.server_address, port, files, self.who.by_address, self.report, record=record)

        updates = config.serve_firmware_updates
        needs = (config.server_address, config.ports.tftp, config.ports.hello, config.boot_dir, updates)
        return Part(needs, [config.ports.tftp], make)

    def _hello(self, config: Config) -> Part:
        from tcp.image import ImageFile
        from tcp.server import HelloServer, Installs

        def make() -> Service:
            image = ImageFile(config.image, config.state_dir)
            installs = Installs(
                host_of=self.who.by_address,
                image_for=lambda _host: image.current(),
                pending=self.store.pending_order,
                complete=self._complete,
                now=lambda: datetime.now(UTC),
            )
            ports = config.ports
            return HelloServer(config.server_address, ports.hello, ports.image, installs, self.report)

        ports = [config.ports.hello, config.ports.image]
        return Part((config.server_address, *ports, config.image), ports, make)

    def _complete(self, mac: str, token: str) -> bool:
        from monitoring.store import StoreError

        try:
            self.store.complete_order(mac, token)  # False is no failure: it was cancelled or replaced meanwhile
        except StoreError as error:
            log.warning("%s", error)
            return False
        return True

    def _ntp(self, config: Config) -> Part:
        from ntp.policy import NtpPolicy, RateLimit
        from ntp.server import NtpServer

        def make() -> Service:
            limit = RateLimit(interval=config.ntp_rate_limit) if config.ntp_rate_limit else None
            return NtpServer(
                config.server_address,
                config.ports.ntp,
                NtpPolicy(limit),
                self.who.by_address,
                self.report,
                local_stratum=config.local_stratum,
            )

        needs = (config.server_address, config.ports.ntp, config.ntp_rate_limit, config.local_stratum)
        return Part(needs, [config.ports.ntp], make)

    def _web(self, config: Config) -> Part:
        from web.server import WebServer

        def make() -> Service:
            return WebServer(config.web, config.ports.web, config.state_dir, self._backend)

        return Part((config.web, config.ports.web, config.web_password), [config.ports.web], make)

    def _monitoring(self, config: Config) -> Part:
        from monitoring.directory import Roster
        from monitoring.watching import Rack, Watching, site_of

        def make() -> Service:
            rack = Rack(
                hosts=lambda: Roster(self.hosts, self.fleet.snapshot()).all(),
                by_mac=self.who.find,
                by_address=self.who.by_address,
                rows=self.fleet.snapshot,
                report=self.report,
                foreign=self.fleet.foreign_server,
            )
            return Watching(config, self.store, rack)

        return Part(
            (config.monitoring, config.switches, config.lease_time, site_of(config), config.interface), [], make
        )

    def _backend(self) -> Backend:
        """What the page asks; called in its thread, which imports Flask."""
        from tftp.files import problems_of
        from web.backend import Backend, Place, Rack

        config, session, store = self.config, self.session, self.store
        place = Place(config.path, session.env_path, config.state_dir, store, config.web, config.web_password)

        def rack() -> Rack:
            watching = self._watching
            rack = Rack(
                config=self.config,
                hosts=self.hosts,
                store=store,
                rows=self.fleet.snapshot,
                readings=store.latest_samples,
                server_runs=lambda: True,
                counters=self._counters,
                version=VERSION,
                problems_of=problems_of,
            )
            if watching is None:
                return rack
            return dataclasses.replace(
                rack,
                readings=watching.health.latest,
                facts=watching.lookout.facts,
                news=watching.switches.news,
                faces=watching.switches.faces,
            )

        return Backend(place, rack)

    @property
    def _watching(self) -> Watching | None:
        """What watches the Pis, where it runs; any thread."""
        from monitoring.watching import Watching

        found = self.services.get("monitoring")
        return found if isinstance(found, Watching) else None

    def _counters(self) -> dict[str, dict[str, int]]:
        """What the services have counted; any thread."""
        running = ((name, self.services.get(name)) for name in ("dhcp", "tftp", "hello", "ntp"))
        return {name: dict(getattr(service, "counters", {})) for name, service in running if service}

    def take_over(self, services: Services) -> None:
        """Go on with config.yaml as it is now: what is made of other values is made anew, the rest is not disturbed.

        A configuration with a mistake, or one whose ports cannot be had, is told and changes nothing.
        """
        try:
            config = self.session.config()
            self.session.hosts(config)  # they must be good in the new network too
        except Failure as error:
            log.warning("config.yaml is not taken over: %s", error.message.removesuffix("\nnothing was started"))
            return
        fixed = [name for name in ("state_dir", "log_dir") if getattr(config, name) != getattr(self.config, name)]
        if fixed:
            log.warning("config.yaml: %s counts from the next start on", " and ".join(fixed))
            config = dataclasses.replace(config, **{name: getattr(self.config, name) for name in fixed})
        if config == self.config:
            return
        before, self.config = self.config, config
        self._follow(before, config)
        try:
            changed = self._exchange(services, self._parts, self.parts(config))
        except Failure as error:
            self.config = before
            self._follow(config, before)
            self._exchange(services, self.parts(config), self._parts)
            log.error("config.yaml is not taken over: %s", error.message)
            return
        self._parts = self.parts(config)
        log.info("config.yaml is taken over; made anew: %s", ", ".join(changed) or "nothing")

    def _follow(self, before: Config, config: Config) -> None:
        """Bring what outlives the services into line with a configuration."""
        for problem in self.hosts.follow(config):
            log.warning("hosts.csv is not taken over: %s", problem)
        if dhcp_needs(before) != dhcp_needs(config):
            self.who.follow(config.dhcp_mode == "proxy")
            self._policy = self._policy_of(config)

    def _exchange(self, services: Services, before: dict[str, Part], after: dict[str, Part]) -> list[str]:
        """Stop what is no longer wanted as it is, and start what is; the names. Failure where one cannot bind."""
        other = [
            name for name in {**before, **after} if name not in before or before[name].needs != after_needs(after, name)
        ]
        for name in other:
            if name in self.services:
                services.retire(self.services.pop(name))
        for name in other:
            if name in after:
                self.services[name] = bind(name, after[name].ports, after[name].make)
                services.add(self.services[name])
        return other


def after_needs(parts: dict[str, Part], name: str) -> tuple[object, ...] | None:
    """What a part is made of; None where it is not wanted."""
    return parts[name].needs if name in parts else None


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


@click.command()
@click.pass_obj
def server(session: Session) -> None:
    """Run everything: DHCP, TFTP, the installer's protocol, NTP."""
    from monitoring.upkeep import ConfigWatch
    from tftp.files import problems_of
    from utility.service import Services, StateHeldError, notify_systemd, only_server

    config = session.config()
    session.hosts(config)  # its mistakes are told before anything is written
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_server(config.state_dir))
        except StateHeldError as error:
            raise Failure(str(error)) from None
        store = stack.enter_context(session.store(config, read_only=False))
        log_to(config.log_dir, session.level)
        hosts = session.hosts(config, write=True)
        raise_file_limit()
        assembly = Assembly(session, config, hosts, store)
        services = Services(assembly.build())
        watch = ConfigWatch([session.config_path, session.env_path or config.path.parent / ".env"], services.wake)
        assembly.upkeep.also(watch.look)

        def ready() -> None:
            # What is there now stays. The collector would look through it, and through a board of thousands, again
            # and again while a crowd is served: a third of the time of that, and nearly nothing of ours has cycles.
            gc.freeze()
            gc.set_threshold(20_000)
            notify_systemd("READY=1")
            log.info("ready: %s on %s (%s)", ", ".join(config.services), config.server_address, config.interface)
            for problem in problems_of(config.boot_dir):
                log.warning("%s", problem)

        def reload() -> None:
            assembly.upkeep.reload()
            assembly.take_over(services)

        failure = services.run(reload, ready)
        # What a service still had to tell when the clockwork had stopped already.
        assembly.fleet.flush(time.time())
        with contextlib.suppress(OSError):
            hosts.flush()
        notify_systemd("STOPPING=1")
        if failure:
            raise Failure(failure)
        log.info("stopped")
