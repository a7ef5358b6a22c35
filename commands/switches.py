"""The commands that ask switches: what is plugged where."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.power import put_right
from commands.session import FAILED, PARTLY, Failure, Session, finish, warn

if TYPE_CHECKING:
    from monitoring.places import Finding
    from monitoring.store import Store
    from utility.config import Config, Switch
    from utility.findport import Sighting
    from utility.hosts import Hosts
    from utility.mac_mapper import Spot
    from utility.switches import PoeSwitch, Port


@click.command()
@click.argument("mac")
@click.argument("switch", required=False)
@click.argument("vlan", required=False, type=click.IntRange(1, 4094))
@click.option("--switch", "switch_option", metavar="SWITCH", help="Ask this switch only.")
@click.option(
    "--vlan", "vlan_option", type=click.IntRange(1, 4094), help="Where it is in this VLAN.  [default: private_number]"
)
@click.option("--json", "as_json", is_flag=True, help="For scripts: every port that has seen it, the likeliest first.")
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
    """Tell which switch and port a MAC (or a Pi of hosts.csv) is on, and what power it takes there."""
    from monitoring.operations import OperationError, look_for
    from utility.hosts import parse_mac

    config = session.config()
    hosts = session.roster(config)
    known = hosts.named(mac)
    try:
        wanted = known.mac if known else parse_mac(mac)
    except ValueError as error:
        raise OperationError(f"{error}, or give a Pi of hosts.csv") from None
    chosen = switch_option or switch
    switches = [named_switch(config, chosen)] if chosen else config.switches
    search = look_for(switches, wanted, known, vlans_of(config, vlan_option or vlan))
    edge = search.edge
    if as_json:
        click.echo(json.dumps([sighting_json(each, each is edge) for each in search.sightings], indent=2))
    if edge is None:
        raise OperationError(search.why_not)
    for failure in search.failed.values():
        warn(str(failure))
    if not as_json:
        click.echo(f"{known.name if known else wanted}  {sighting_line(edge)}")


def vlans_of(config: Config, vlan: int | None) -> list[int]:
    """Where a Pi is likely to be: in the VLAN that somebody names, else in that of config.yaml."""
    return [each for each in (vlan or config.private_number,) if each]


def named_switch(config: Config, text: str) -> Switch:
    from monitoring.operations import OperationError, find_switch, known_switches

    found = find_switch(config, text)
    if found is None:
        raise OperationError(f"there is no switch {text!r}; {known_switches(config)}")
    return found


def sighting_line(sighting: Sighting) -> str:
    """`rack-a  port 7  Gi1/0/7  on, delivering, 4.0 W`; a port that restart has no number for says why."""
    name = sighting.switch.name or str(sighting.switch.address)
    if not sighting.port:
        interface = sighting.if_name or f"interface {sighting.if_index}"
        return f"{name}  {interface}  which PoE port that is, its tables do not tell: try `piman calibrate`"
    return f"{name}  port {sighting.port}  {sighting.if_name}  {power_words(sighting.face)}".rstrip()


def power_words(port: Port | None) -> str:
    if port is None or not port.has_poe:
        return "no PoE" if port else ""
    words = ["on" if port.admin_on else "off" if port.admin_on is False else "unknown"]
    if port.detection:
        words.append(port.detection.name.lower().replace("_", " "))
    if port.milliwatts is not None:
        words.append(f"{port.milliwatts / 1000:.1f} W" + ("" if port.source == "measured" else f" ({port.source})"))
    return ", ".join(words)


def sighting_json(sighting: Sighting, is_edge: bool) -> dict[str, object]:
    face = sighting.face
    return {
        "switch": str(sighting.switch.address),
        "switch_number": sighting.switch.index,
        "port": sighting.port or None,
        "if_index": sighting.if_index,
        "if_name": sighting.if_name,
        "macs_on_port": sighting.macs_on_port,
        "is_trunk": sighting.is_trunk,
        "neighbour": sighting.neighbour or None,
        "is_edge": is_edge,
        "admin_on": face.admin_on if face else None,
        "detection": face.detection.name.lower() if face and face.detection else None,
        "milliwatts": face.milliwatts if face else None,
        "milliwatts_source": face.source or None if face else None,
    }


# ------------------------------------------------------------------------------------------- who is plugged in where


@click.command()
@click.argument("switch")
@click.argument("ports", nargs=-1, required=True, metavar="PORTS...|all")
@click.option("--write", is_flag=True, help="Write the new ones into hosts.csv.")
@click.option("--timeout", type=click.FloatRange(1, 600), default=60.0, show_default=True, help="Seconds for each Pi.")
@click.option("--force", is_flag=True, help="Also ports that lead to a switch, and protected ones.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def mapper(
    session: Session, switch: str, ports: tuple[str, ...], write: bool, timeout: float, force: bool, as_json: bool
) -> None:
    """Power-cycle ports one by one, see which Pi comes back on each, and propose lines for hosts.csv."""
    from monitoring.surveys import guard_of, map_switch, place_name
    from utility.service import server_runs

    config = session.config()
    chosen = named_switch(config, switch)
    hosts = session.hosts(config, write=write)
    with at_work(session, config, chosen) as (store, poe):
        findings, spots = map_switch(
            store,
            poe,
            port_numbers(poe, ports),
            hears=server_runs(config.state_dir),
            guard=guard_of(hosts, force),
            patience=timeout,
            tell=lambda port, text: click.echo(f"{place_name(chosen, port)}: {text}", err=as_json),
        )
    tell_proposals(config, hosts, spots, write, as_json, findings)
    finish(len(findings), sum(not each.verdict.mac for each in findings), "ports showed no Pi")


@click.command()
@click.argument("switches", nargs=-1, metavar="[SWITCH]...")
@click.option("--write", is_flag=True, help="Write the new ones into hosts.csv.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def discover(session: Session, switches: tuple[str, ...], write: bool, as_json: bool) -> None:
    """See which Pi is on which port of all switches, without cutting any power, and propose lines for hosts.csv."""
    from monitoring.surveys import look_around

    config = session.config()
    chosen = [named_switch(config, each) for each in switches] or list(config.switches)
    if not chosen:
        raise Failure("config.yaml has no switches")
    hosts = session.hosts(config, write=write)
    with session.store(config, read_only=False) as store:
        seen = look_around(store, hosts, chosen)
    for text in (*map(str, seen.failed), *seen.unsure):
        warn(text)
    tell_proposals(config, hosts, seen.spots, write, as_json, ())
    if seen.failed:
        count = len(seen.failed)
        raise Failure(f"{count} of {seen.asked} switches did not answer", PARTLY if count < seen.asked else FAILED)
    if not seen.spots:
        raise Failure("no Pi was seen on any port: are they powered, and did they send anything lately?")


@click.command()
@click.argument("switch")
@click.argument("ports", nargs=-1, metavar="[PORTS...|all]")
@click.option("--forget", is_flag=True, help="Forget what was learnt of this switch.")
@click.option(
    "--timeout", type=click.FloatRange(1, 600), default=60.0, show_default=True, help="Seconds for each link."
)
@click.option("--force", is_flag=True, help="Also ports that lead to a switch, and protected ones.")
@click.pass_obj
def calibrate(session: Session, switch: str, ports: tuple[str, ...], forget: bool, timeout: float, force: bool) -> None:
    """Find out which interface a PoE port is, by switching it off and seeing whose link goes.

    For a switch whose tables do not tell. Without PORTS: those whose interface is not known.
    """
    from monitoring.surveys import guard_of, learn_interfaces, place_name, unknown_interfaces

    config = session.config()
    chosen = named_switch(config, switch)
    with at_work(session, config, chosen) as (store, poe):
        if forget:
            store.forget_calibrations(str(chosen.address))
            click.echo(f"{place_name(chosen)}: what was learnt of it is forgotten")
            return
        numbers = port_numbers(poe, ports) if ports else unknown_interfaces(poe)
        if not numbers:
            text = "the interface of every PoE port is known; name ports to try them all the same"
            click.echo(f"{place_name(chosen)}: {text}")
            return
        found = learn_interfaces(
            store,
            poe,
            numbers,
            guard=guard_of(session.hosts(config), force),
            patience=timeout,
            tell=lambda port, text: click.echo(f"{place_name(chosen, port)}: {text}"),
        )
    if found:
        click.echo("It is used from now on; a server that runs uses it when it is started again.")
    finish(len(numbers), len(numbers) - len(found), "ports stay unknown")


@click.group(name="switch")
def switch_group() -> None:
    """A switch itself: write it down, for the lab or for a report of what Piman does wrong with it."""


@switch_group.command(name="record")
@click.argument("switch")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--anonymise", is_flag=True, help="Also without names, and with the last half of each MAC changed.")
@click.option("--also", multiple=True, metavar="OID", help="Record this part of its tree too. Look what is in it.")
@click.pass_obj
def switch_record(session: Session, switch: str, file: Path | None, anonymise: bool, also: tuple[str, ...]) -> None:
    """Write the tables of a switch to FILE (or the terminal), for `piman lab up --switch FILE`. It only reads."""
    from monitoring.surveys import record_switch
    from utility.drivers import oid

    chosen = named_switch(session.config(), switch)
    try:
        more = [oid(each.strip(".")) for each in also]
    except ValueError:
        raise click.UsageError(f"--also {' '.join(also)}: expected numbers and dots, like 1.3.6.1.4.1.9.9.13") from None
    text = record_switch(chosen, anonymise, more, lambda line: click.echo(line, err=True))
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file}: cannot be written: {error.strerror}") from None
    click.echo(f"{file}: {text.count(chr(10))} lines; read it before you give it away", err=True)


# ----------------------------------------------------------------------------------------------------- what they share


@contextlib.contextmanager
def at_work(session: Session, config: Config, switch: Switch) -> Iterator[tuple[Store, PoeSwitch]]:
    """The store, and the switch, held so that nobody else switches its ports meanwhile."""
    from monitoring.surveys import place_name, worked_at

    def tell() -> None:
        warn(f"{place_name(switch)} is being worked at by another; this waits for it")

    with session.store(config, read_only=False) as store:
        put_right(store, config)
        with worked_at(store, switch, tell, warn) as poe:
            yield store, poe


def port_numbers(poe: PoeSwitch, words: Sequence[str]) -> list[int]:
    """`2 3`, `1-6,8`, `all` -> port numbers."""
    from monitoring.operations import OperationError, parse_ports

    if list(words) == ["all"]:
        return [port.number for port in poe.ports() if port.has_poe]
    numbers = parse_ports(words)
    if numbers is None:
        text = f"{' '.join(words)!r} is no list of ports; write it like: 2 3 4  or: 1-6,8  or: all"
        raise OperationError(text, usage=True)
    return numbers


def tell_proposals(
    config: Config, hosts: Hosts, spots: Mapping[str, Spot], write: bool, as_json: bool, findings: Iterable[Finding]
) -> None:
    """Show what hosts.csv says or should say of each, and with `write` write it."""
    from monitoring.surveys import proposal_json, proposals_of

    proposals = proposals_of(config, hosts, spots, write)
    if as_json:
        nobody = [
            {"switch_number": None, "port": each.port.number, "mac": None, "text": each.verdict.text}
            for each in findings
            if not each.verdict.mac
        ]
        click.echo(json.dumps([*(proposal_json(each, write) for each in proposals), *nobody], indent=2))
        return
    for each in proposals:
        where = f"{each.spot.where} ({each.spot.port.label})"
        state = "known" if each.is_known else "written" if write and each.address else "new"
        click.echo(f"{each.line:<48}  # {where}, {state}{f'; {each.note}' if each.note else ''}")
    new = sum(not each.is_known for each in proposals)
    if new and not write:
        click.echo(f"{new} are new; --write puts these lines into hosts.csv", err=True)
