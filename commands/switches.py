"""The commands that ask switches: what is plugged where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from commands.session import Session, warn

if TYPE_CHECKING:
    from utility.config import Switch
    from utility.findport import Sighting


@click.command()
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
    from monitoring.operations import OperationError, find_switch, known_switches, look_for
    from utility.hosts import parse_mac

    config = session.config()
    hosts = session.roster(config)
    known = hosts.named(mac)
    try:
        wanted = known.mac if known else parse_mac(mac)
    except ValueError as error:
        raise OperationError(f"{error}, or give a Pi of hosts.csv") from None
    switches: Sequence[Switch] = config.switches
    chosen = switch_option or switch
    if chosen:
        found = find_switch(config, chosen)
        if found is None:
            raise OperationError(f"there is no switch {chosen!r}; {known_switches(config)}")
        switches = [found]
    sightings = look_for(switches, wanted, known, vlan_option or vlan, warn)
    if as_json:
        click.echo(json.dumps([sighting_json(each) for each in sightings], indent=2))
    for each in () if as_json else sightings:
        where = f"{each.switch.name or each.switch.address}  port {each.port}  {each.if_name}"
        others = f"  ({each.macs_on_port} MACs: perhaps a trunk)" if each.is_trunk else ""
        click.echo(f"{known.name if known else wanted}  {where}{others}")
    if not sightings:
        asked = ", ".join(str(each.address) for each in switches) or "no switch: config.yaml has none"
        raise OperationError(f"{wanted} is on no port of {asked}; is the Pi powered, and did it send anything lately?")


def sighting_json(sighting: Sighting) -> dict[str, object]:
    return {
        "switch": str(sighting.switch.address),
        "switch_number": sighting.switch.index,
        "port": sighting.port,
        "if_index": sighting.if_index,
        "if_name": sighting.if_name,
        "macs_on_port": sighting.macs_on_port,
    }
