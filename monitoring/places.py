"""Which board is plugged where: asks all switches now and then, keeps the answer, and tells who moved.

What the switches' tables mean is in utility/mac_mapper.py. Only `map_ports` and `calibrate` switch any power.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from monitoring.power import PowerIntents, hold_switch
from monitoring.store import Event, PiRow, Place, Store, StoreError
from utility.config import Config, Switch
from utility.fdb import UP
from utility.mac_mapper import Spot, Table, Verdict, is_settled, judge, settle, which_went
from utility.power_cycle import power_cycle
from utility.power_rules import Guard
from utility.service import Severity
from utility.snmp import OBJECTS, Snmp
from utility.switches import PoeSwitch, Port, SwitchError, ask_all, open_switch

log = logging.getLogger("piman.places")

POLL = 1.0  # between two looks whether a Pi has come up


def read_table(switch: Switch) -> Table:
    """SwitchError."""
    with open_switch(switch) as poe:
        ports = poe.ports()
        return Table(switch, tuple(ports), poe.macs(ports))


def read_tables(switches: Sequence[Switch], on_error: Callable[[SwitchError], None]) -> list[Table]:
    """Of all switches at once; one that fails is told to `on_error` and left out."""

    def read(switch: Switch) -> Table | None:
        try:
            return read_table(switch)
        except SwitchError as error:
            on_error(error)
            return None

    return [table for table in ask_all(read, switches) if table is not None]


def moves(
    before: Mapping[str, Place],
    spots: Mapping[str, Spot],
    names: Mapping[str, str],
    now: float,
    placed: Callable[[str], tuple[Switch, int] | None] = lambda _mac: None,
) -> tuple[list[Place], list[Event]]:
    """What to keep of where the boards are, and the news: who moved, and who is not where config.yaml has it.

    names   of the switches, by address
    placed  where config.yaml has a MAC
    """
    places, events = [], []
    for mac, spot in spots.items():
        place = Place(mac, str(spot.switch.address), spot.port.number, spot.port.label, now, now)
        old = before.get(mac)
        if old is not None and (old.switch, old.port) == (place.switch, place.port):
            places.append(replace(place, since=old.since))
            continue
        places.append(place)
        texts = []
        if old is not None:
            texts.append(f"moved from {names.get(old.switch, old.switch)} port {old.port} to {spot.where}")
        other = placed(mac)
        if other is not None and (str(other[0].address), other[1]) != (place.switch, place.port):
            elsewhere = f"{other[0].name or other[0].address} port {other[1]}"
            texts.append(
                f"is on {spot.where}, but config.yaml has it on {elsewhere}, which a restart by its name cuts: "
                "correct pi_addresses, or the cable"
            )
        events += [Event(0, now, mac, Severity.WARNING, text) for text in texts]
    return places, events


class PlaceWatch:
    """Looks where the boards are, in a thread of its own. A switch that somebody works at is left alone that time."""

    name = "places"
    first = 20.0  # seconds after the start: the Pis of a rack that was switched on with us are coming up
    interval = 300.0
    glance = 5.0  # between two looks whether somebody new was heard, who may wait to be adopted: then we ask at once

    def __init__(
        self,
        config: Config,
        known: Callable[[], Collection[str]],
        store: Store,
        placed: Callable[[str], tuple[Switch, int] | None] = lambda _mac: None,
    ) -> None:
        """`known`: the MACs that matter, those of hosts.csv and on the board; `placed`: where config.yaml has one."""
        self._config, self._known, self._store, self._placed = config, known, store, placed
        self._names = {str(switch.address): switch.name or str(switch.address) for switch in config.switches}
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._told: set[str] = set()

    def run(self) -> None:
        due, met = time.monotonic() + self.first, set(self._known())
        while not self._stopping.wait(min(self.glance, max(0.0, due - time.monotonic()))):
            known = set(self._known())
            if time.monotonic() < due and known <= met:
                continue
            due, met = time.monotonic() + self.interval, known
            if self._config.switches:
                # A silent switch takes longer than an end may: then that look is left behind.
                self._woken.clear()
                threading.Thread(target=self._look, name="places look", daemon=True).start()
                self._woken.wait()
                if self._failure:
                    raise self._failure

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    def _look(self) -> None:
        try:
            self.look()
        except StoreError as error:
            self._tell_once(str(error))
        except BaseException as error:  # noqa: BLE001  # the top of a thread; `run` raises it
            self._failure = error
        finally:
            self._woken.set()

    def look(self) -> None:
        """Ask all switches once, and keep what they say. StoreError."""
        known = set(self._known())
        free = [each for each in self._config.switches if self._is_free(each)]
        sure, _ = settle(read_tables(free, self._fails), known)
        if self._stopping.is_set():
            return
        ours = {mac: spot for mac, spot in sure.items() if mac in known}
        places, events = moves(self._store.places(), ours, self._names, time.time(), self._placed)
        self._store.save_places(places)
        self._store.save_board(events, [])

    def _is_free(self, switch: Switch) -> bool:
        with hold_switch(self._store, switch, patience=0) as held:
            return held

    def _fails(self, error: SwitchError) -> None:
        self._tell_once(str(error))

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


def links_of(switch: Switch) -> dict[int, bool]:
    """Which interfaces have a link, by ifIndex. SwitchError."""
    with Snmp(switch) as snmp:
        return {oid[-1]: value == UP for oid, value in snmp.walk(OBJECTS["ifOperStatus"])}


# ------------------------------------------------------------------------------------------------- with power cuts


@dataclass(frozen=True, slots=True)
class Finding:
    """What was learnt of one port."""

    port: Port
    verdict: Verdict


def booted_since(rows: Iterable[PiRow], when: float) -> set[str]:
    """The MACs that have asked for an address since, or reached another stage: they boot. A stranger has no stage."""
    return {
        row.mac
        for row in rows
        if row.heard_at >= when and (row.heard == "DHCPDISCOVER" or (row.stage is not None and row.since >= when))
    }


def map_ports(
    store: Store,
    poe: PoeSwitch,
    numbers: Sequence[int],
    *,
    hears: bool,
    guard: Guard,
    patience: float,
    on_progress: Callable[[int, str], None],
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Power-cycle the ports one by one, and see who comes back on each. The caller holds the switch. SwitchError.

    hears     a server runs that hears DHCPDISCOVER
    patience  seconds for a Pi to come back
    """
    findings = []
    intents = PowerIntents(store, poe.switch)
    face = {port.number: port for port in poe.ports()}
    for number in numbers:
        began = clock()

        def tell(port: int, text: str) -> None:
            nonlocal began
            began = clock() if text == "on" else began
            on_progress(port, text)

        (result,) = power_cycle(poe, [number], stagger=0, guard=guard, on_progress=tell, intents=intents, wait=wait)
        port = face.get(number, Port(number, ""))
        if not result.ok:
            on_progress(number, result.text)
            findings.append(Finding(port, Verdict("", result.text)))
            continue
        verdict = _look(store, poe, list(face.values()), number, began)
        while not is_settled(verdict, hears) and clock() - began < patience:
            wait(POLL)
            verdict = _look(store, poe, list(face.values()), number, began)
        on_progress(number, f"{verdict.mac} {verdict.text}".strip())
        findings.append(Finding(port, verdict))
    return findings


def _look(store: Store, poe: PoeSwitch, face: Sequence[Port], number: int, since: float) -> Verdict:
    macs = poe.macs(face)
    elsewhere = frozenset().union(*(each for port, each in macs.items() if port != number))
    return judge(macs.get(number, frozenset()), booted_since(store.pis(), since), elsewhere)


def calibrate(
    store: Store,
    poe: PoeSwitch,
    numbers: Sequence[int],
    links: Callable[[], Mapping[int, bool]],
    *,
    guard: Guard,
    patience: float,
    on_progress: Callable[[int, str], None],
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, int]:
    """Switch the ports off and on one by one, and see whose link goes and comes: port number -> ifIndex, on record.

    The caller holds the switch; `links` says which interfaces have one. Where none goes, nothing is plugged in there;
    where more than one does, something else happened meanwhile, and nothing is learnt. SwitchError.
    """
    found: dict[int, int] = {}
    intents = PowerIntents(store, poe.switch)
    face = {port.number: port for port in poe.ports()}
    for number in numbers:
        before, gone = links(), set[int]()

        def wait_and_look(seconds: float, before: Mapping[int, bool] = before, gone: set[int] = gone) -> None:
            wait(seconds)
            gone.update(each for each, up in links().items() if not up and before.get(each, False))

        # What is without a link in the waits of a power cycle was switched off by us.
        (result,) = power_cycle(
            poe, [number], stagger=0, guard=guard, on_progress=on_progress, intents=intents, wait=wait_and_look
        )
        if not result.ok:
            on_progress(number, result.text)
            continue
        began = clock()
        while gone - set(which_went(before, gone, links())) and clock() - began < patience:
            wait(POLL)
        went = which_went(before, gone, links())
        if len(went) == 1:
            found[number] = went[0]
            store.save_calibration(str(poe.switch.address), face[number].index, went[0])
        on_progress(number, _learnt(went, gone))
    return found


def _learnt(went: Sequence[int], gone: Collection[int]) -> str:
    if len(went) == 1:
        return f"it is the interface {went[0]}"
    if went:
        return f"the interfaces {', '.join(map(str, went))} all went: try again while nobody else is at the rack"
    if gone:
        return f"the link of {', '.join(map(str, sorted(gone)))} went and did not come back"
    return "no link went: plug a Pi in there that is up, and try again"
