"""What the page lets a caller do to Pis and ports: checked first, then a job, then an entry in the audit trail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from monitoring.channels import ChannelError, Message, deliver
from monitoring.directory import Roster
from monitoring.operations import (
    OperationError,
    Operations,
    Outcome,
    Target,
    adopt,
    check_pis,
    find_host,
    resolve,
)
from monitoring.power import PowerOptions
from monitoring.store import Place, Store, StoreError
from monitoring.watching import site_of
from utility.config import Config
from utility.hosts import Host, Hosts, Plan, parse_mac
from utility.service import Severity
from web.access import Caller
from web.jobs import Job, Jobs, Result, Tell
from web.views import Json

if TYPE_CHECKING:
    from web.backend import Rack

BLINKS = 3
UNASSIGNED = "0.0.0.0"  # in hosts.csv: one is picked
BLINK_SECONDS = 2.0


class Acts:
    """Orders of callers. Any thread."""

    def __init__(self, rack: Callable[[], Rack], store: Store) -> None:
        self._rack, self._store = rack, store
        self.jobs = Jobs(self._finished)
        self.closing = threading.Event()  # what is under way is to end early

    def close(self) -> None:
        """Let what is under way end early: with every port on again."""
        self.closing.set()

    def _finished(self, job: Job) -> None:
        bad = ", ".join(f"{each.target}: {each.text}" for each in job.results if not each.ok)
        self.record(job.who, job.kind, ", ".join(job.targets), job.error or bad or "done")

    def record(self, who: str, action: str, subject: str, result: str) -> None:
        """One line of the audit trail; what is done is not undone because it cannot be noted."""
        with suppress(StoreError):
            self._store.add_audit(time.time(), who, action, subject[:4000], result[:4000])

    def targets(self, wanted: Sequence[object]) -> list[Target]:
        """Names, addresses, MACs and {switch, ports} -> targets, each once; OperationError."""
        rack = self._rack()
        roster = Roster(rack.hosts, rack.rows())
        found: dict[tuple[int, int], Target] = {}
        for each in wanted:
            words = [str(each)]
            if isinstance(each, Mapping):
                words = [str(each["switch"]), *(str(int(port)) for port in each["ports"])]
            for target in resolve(rack.config, roster, words):
                found[target.switch.index, target.port] = target
        return list(found.values())

    def restart(self, who: Caller, targets: Sequence[Target]) -> Json:
        def work(tell: Tell) -> Sequence[Result]:
            return _results(self._operations(who, tell).cycle(targets))

        return self.jobs.start("restart", who.who, _labels(targets), work)

    def reinstall(self, who: Caller, targets: Sequence[Target]) -> Json:
        """Erase and install; OperationError where a target has no Pi, or nobody is there to install it."""
        check_pis(targets)
        if not self._rack().server_runs():
            raise OperationError("no server runs, so nobody would install them; start it with `piman server`")

        def work(tell: Tell) -> Sequence[Result]:
            return _results(self._operations(who, tell).reinstall(targets)[1])

        return self.jobs.start("reinstall", who.who, _labels(targets), work)

    def power(self, who: Caller, targets: Sequence[Target], on: bool) -> Json:
        """Turn ports off, or on again, until somebody says otherwise."""

        def work(tell: Tell) -> Sequence[Result]:
            return _results(self._operations(who, tell).turn(targets, on))

        return self.jobs.start(f"power {'on' if on else 'off'}", who.who, _labels(targets), work)

    def identify(self, who: Caller, targets: Sequence[Target]) -> Json:
        """Let the power of the ports blink, which their lamps show: the Pis restart with it."""

        def work(tell: Tell) -> Sequence[Result]:
            outcomes: Sequence[Outcome] = ()
            for _again in range(BLINKS):
                outcomes = self._operations(who, tell).cycle(targets, PowerOptions(0.0, BLINK_SECONDS))
                if self.closing.is_set() or not any(each.ok for each in outcomes):
                    break
            return _results(outcomes)

        return self.jobs.start("identify", who.who, _labels(targets), work)

    def try_channels(self, who: Caller, name: str | None) -> Json:
        """Send a test message to a channel, or to all; OperationError where there is none."""
        config = self._rack().config
        channels = config.monitoring.channels
        chosen = [each for each in channels if name in (None, each.name)]
        if not chosen:
            known = f"known: {', '.join(each.name for each in channels)}" if channels else "config.yaml names none"
            raise OperationError(f"there is no channel {name!r}; {known}" if name else known)

        def work(tell: Tell) -> Sequence[Result]:
            results = []
            for each in chosen:
                now = time.time()
                tell(each.name, "sending")
                try:
                    deliver(each, Message(f"test-{now:.0f}", site_of(config), now, ()))
                except ChannelError as error:
                    results.append(Result(each.name, False, str(error)))
                else:
                    results.append(Result(each.name, True, "sent"))
            return results

        return self.jobs.start("test alerts", who.who, [each.name for each in chosen], work)

    def adopt(self, who: Caller, mac: str, name: str, address: str) -> Host:
        """Write a Pi into hosts.csv, with the address of the port where it is; OperationError."""
        rack = self._rack()
        if address == UNASSIGNED:
            address = address_for(rack.config, rack.hosts, rack.store.places().get(_mac(mac)))
        host = adopt(rack.hosts, mac, name, address)
        self.record(who.who, "adopt", host.mac, f"{host.name} with {host.address}")
        return host

    def cancel_order(self, who: Caller, word: str) -> bool:
        """Take back the order of a fresh install; whether there was one. OperationError for a Pi that is none."""
        rack = self._rack()
        host = find_host(Roster(rack.hosts, rack.rows()), word)
        found = rack.store.cancel_order(host.mac)
        if found:
            rack.store.add_event(host.mac, time.time(), Severity.INFO, f"reinstall cancelled by {who.who}")
            self.record(who.who, "cancel reinstall", host.name, "done")
        return found

    def _operations(self, who: Caller, tell: Tell) -> Operations:
        store = self._rack().store
        return Operations(store, who.who, lambda target, text: tell(target.label, text), lambda: self.closing)


def _mac(text: str) -> str:
    """A MAC in any form; what is none is for `adopt` to refuse."""
    with suppress(ValueError):
        return parse_mac(text)
    return text


def address_for(config: Config, hosts: Hosts, place: Place | None) -> str:
    """The address for a Pi at that port: the one that config.yaml gives the port, if nobody has it.

    A port that has none must not make it the Pi of another port, which a restart by its name would cut.
    """
    plan, used = Plan.of(config), {host.address for host in hosts.all()}
    switch = next((each for each in config.switches if place and str(each.address) == place.switch), None)
    if switch is None or place is None:
        return UNASSIGNED
    wanted = switch.pi_addresses[place.port - 1] if 0 < place.port <= len(switch.pi_addresses) else None
    if wanted is not None and wanted not in used:
        return str(wanted)
    elsewhere = used | set(config.pi_addresses)
    free = (each for each in config.network.hosts() if each not in elsewhere and plan.is_free(each))
    return str(next(free, UNASSIGNED))


def _labels(targets: Sequence[Target]) -> list[str]:
    return [target.label for target in targets]


def _results(outcomes: Sequence[Outcome]) -> list[Result]:
    return [Result(each.target.label, each.ok, each.text) for each in outcomes]
