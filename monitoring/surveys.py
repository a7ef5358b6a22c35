"""What is plugged where, asked on purpose: for the commands and the web page alike. No terminal.

Only `map_switch` and `learn_interfaces` switch any power. What fails of the rack is an OperationError.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from monitoring.operations import OperationError, adopt, nudge
from monitoring.places import Finding, calibrate, links_of, map_ports, moves, read_tables
from monitoring.power import hold_switch, left_off, own_macs, restore_left_off
from monitoring.store import Store
from utility.config import Config, Switch
from utility.hosts import Hosts, Plan
from utility.mac_mapper import Proposal, Spot, boards, propose, settle
from utility.power_rules import Guard
from utility.switches import PoeSwitch, SwitchError, open_switch

if TYPE_CHECKING:
    from utility.drivers import Oid

Wait = Callable[[float], object]
Tell = Callable[[int, str], None]  # port, what happens to it


def place_name(switch: Switch, port: int = 0) -> str:
    """A switch, or a port of it, for a person."""
    return f"{switch.name or switch.address}{f' port {port}' if port else ''}"


@contextlib.contextmanager
def opened(switch: Switch) -> Iterator[PoeSwitch]:
    """The switch, to look at. OperationError."""
    try:
        with open_switch(switch) as poe:
            yield poe
    except SwitchError as error:
        raise OperationError(str(error)) from None


@contextlib.contextmanager
def worked_at(
    store: Store, switch: Switch, on_wait: Callable[[], None], on_left: Callable[[str], None], wait: Wait = time.sleep
) -> Iterator[PoeSwitch]:
    """The switch, held so that nobody else switches its ports meanwhile. OperationError.

    on_wait  is called once where somebody else has it
    on_left  is told of each port that a power cycle which died had left off: it is on again
    """
    with hold_switch(store, switch, on_wait=on_wait, wait=wait), opened(switch) as poe:
        for result in restore_left_off(store, poe, wait):
            on_left(left_off(switch, result))
        yield poe


def guard_of(hosts: Hosts, force: bool = False) -> Guard:
    """What is refused: ports that this machine is behind, that lead to a switch, and protected ones."""
    return Guard(own_macs(), frozenset(host.mac for host in hosts.all()), force)


def map_switch(
    store: Store,
    poe: PoeSwitch,
    numbers: Sequence[int],
    *,
    hears: bool,
    guard: Guard,
    patience: float,
    tell: Tell,
    wait: Wait = time.sleep,
) -> tuple[list[Finding], dict[str, Spot]]:
    """Power-cycle the ports one by one and see who comes back: what was found of each, and who is where, on record."""
    findings = map_ports(store, poe, numbers, hears=hears, guard=guard, patience=patience, on_progress=tell, wait=wait)
    spots = {each.verdict.mac: Spot(poe.switch, each.port) for each in findings if each.verdict.mac}
    keep_places(store, spots)
    return findings, spots


@dataclass(frozen=True, slots=True)
class Sight:
    """What the switches' tables say, without any power cut.

    spots     MAC -> where it is
    unsure    boards that more than one port has seen, in words
    failed    switches that did not answer, of `asked`
    """

    spots: Mapping[str, Spot]
    unsure: tuple[str, ...]
    failed: tuple[SwitchError, ...]
    asked: int


def look_around(store: Store, hosts: Hosts, switches: Sequence[Switch]) -> Sight:
    """Wake what is in hosts.csv, ask all the switches, and keep what they say."""
    failed: list[SwitchError] = []
    known = {host.mac for host in hosts.all()} | {row.mac for row in store.pis()}
    nudge(host.address for host in hosts.all())
    sure, several = settle(read_tables(switches, failed.append), known)
    spots = boards(sure, known)
    keep_places(store, spots)
    unsure = []
    for mac in sorted(several.keys() & known):
        where = " and ".join(f"{spot.where} ({spot.port.label})" for spot in several[mac])
        unsure.append(f"{mac} is on {where}: nothing tells which is right")
    return Sight(spots, tuple(unsure), tuple(failed), len(switches))


def learn_interfaces(
    store: Store,
    poe: PoeSwitch,
    numbers: Sequence[int],
    *,
    guard: Guard,
    patience: float,
    tell: Tell,
    wait: Wait = time.sleep,
) -> dict[int, int]:
    """Switch ports off and on to see whose link goes: port -> ifIndex of those that told, on record."""
    return calibrate(
        store,
        poe,
        numbers,
        lambda: links_of(poe.switch),
        guard=guard,
        patience=patience,
        on_progress=tell,
        wait=wait,
    )


def unknown_interfaces(poe: PoeSwitch) -> list[int]:
    """The PoE ports of which nothing tells the interface."""
    return [port.number for port in poe.ports() if port.has_poe and port.if_index is None]


def record_switch(
    switch: Switch, anonymise: bool, more: Sequence[Oid] = (), tell: Callable[[str], None] = lambda _text: None
) -> str:
    """The tables of a switch as text, without its secrets; it only reads. OperationError."""
    from utility.recorder import Disguise, record  # noqa: PLC0415  # needed by this alone
    from utility.snmp import Snmp  # noqa: PLC0415
    from utility.snmp_switch import SnmpSwitch  # noqa: PLC0415

    access = switch.snmp
    secrets = {access.read_community, access.write_community, access.auth_password, access.priv_password} - {""}
    try:
        with Snmp(switch) as snmp:
            it = SnmpSwitch(switch, snmp)
            return record(snmp, it.driver, it.object_id, Disguise(secrets, anonymise), more=more, tell=tell)
    except SwitchError as error:
        raise OperationError(str(error)) from None


# ---------------------------------------------------------------------------------------------------------- hosts.csv


def proposals_of(config: Config, hosts: Hosts, spots: Mapping[str, Spot], write: bool) -> list[Proposal]:
    """What hosts.csv says or should say of each; with `write` the new ones are written. OperationError."""
    proposals = propose(spots, hosts.all(), Plan.of(config))
    if write:
        for each in proposals:
            if is_new(each):
                adopt(hosts, each.mac, each.hostname, str(each.address))
    return proposals


def is_new(proposal: Proposal) -> bool:
    """Whether it is a line that could be written."""
    return not proposal.is_known and proposal.address is not None


def proposal_json(proposal: Proposal, written: bool) -> dict[str, object]:
    """For scripts."""
    return {
        "switch": str(proposal.spot.switch.address),
        "switch_number": proposal.spot.switch.index,
        "port": proposal.spot.port.number,
        "label": proposal.spot.port.label,
        "mac": proposal.mac,
        "address": str(proposal.address) if proposal.address else None,
        "hostname": proposal.hostname or None,
        "known": proposal.is_known,
        "written": written and is_new(proposal),
        "note": proposal.note or None,
    }


def keep_places(store: Store, spots: Mapping[str, Spot]) -> None:
    """For `status`, and to notice who moves."""
    names = {str(spot.switch.address): place_name(spot.switch) for spot in spots.values()}
    places, events = moves(store.places(), spots, names, time.time())
    store.save_places(places)
    store.save_board(events, [])
