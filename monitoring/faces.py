"""The face of a switch, told to people and scripts: each port's power and link, and which Pi is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.directory import Roster
from monitoring.operations import OperationError, host_on
from utility.config import Switch
from utility.drivers import Detection
from utility.hosts import Host
from utility.power_rules import ranges
from utility.switches import Capabilities, Port, PowerSupply, SwitchError, open_switch

HEADINGS = ("PORT", "LABEL", "POE", "WATTS", "CLASS", "LINK", "MAC", "PI", "")


@dataclass(frozen=True, slots=True)
class Seat:
    """A port and who is there. `expected` is the Pi of config.yaml, `seen` those whose MAC the switch has there."""

    port: Port
    macs: tuple[str, ...] = ()
    expected: Host | None = None
    seen: tuple[Host, ...] = ()
    is_protected: bool = False


@dataclass(frozen=True, slots=True)
class Face:
    """A switch with all its ports."""

    switch: Switch
    can: Capabilities
    supplies: tuple[PowerSupply, ...]
    seats: tuple[Seat, ...]


def read_face(switch: Switch, hosts: Roster) -> Face:
    """Ask the switch; OperationError with the line that says what is wrong."""
    try:
        with open_switch(switch) as poe:
            can, ports = poe.capabilities, poe.ports()
            macs = poe.macs(ports)
            supplies = tuple(poe.supplies(ports))
    except SwitchError as error:
        raise OperationError(str(error)) from None
    known = {host.mac: host for host in hosts.all()}
    seats = []
    for port in ports:
        there = tuple(sorted(macs.get(port.number, ())))
        seats.append(
            Seat(
                port,
                there,
                host_on(switch, port.number, hosts),
                tuple(known[mac] for mac in there if mac in known),
                port.number in switch.protected_ports,
            )
        )
    return Face(switch, can, supplies, tuple(seats))


def power_word(port: Port) -> str:
    """`delivering`, `searching`, `off`; `none` where it has no PoE."""
    if not port.has_poe:
        return "none"
    if port.admin_on is None:
        return "unknown"
    if not port.admin_on:
        return "off"
    return "on" if port.detection == Detection.UNKNOWN else port.detection.name.lower().replace("_", " ")


def who(seat: Seat) -> str:
    """The Pi there; in brackets the one that should be and is not seen."""
    names = ", ".join(host.name for host in seat.seen)
    if seat.expected is None or seat.expected in seat.seen:
        return names
    return f"{names}, not {seat.expected.name}" if names else f"({seat.expected.name})"


def face_table(face: Face) -> list[str]:
    """Lines for a terminal."""
    lines = [HEADINGS, *(_line(seat) for seat in face.seats)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [*text, *_notes(face)]


def _line(seat: Seat) -> tuple[str, ...]:
    port = seat.port
    watts = "" if port.milliwatts is None else f"{port.milliwatts / 1000:.1f}"
    macs = seat.macs[0] if len(seat.macs) == 1 else f"{len(seat.macs)} MACs" if seat.macs else ""
    notes = [
        f"-> {port.neighbour.label}" if port.neighbour else "",
        "protected" if seat.is_protected else "",
        port.alias,
    ]
    return (
        str(port.number),
        port.label,
        power_word(port) if port.has_poe else "",
        f"{watts} ({port.source})" if watts and port.source != "measured" else watts,
        "" if port.power_class is None else str(port.power_class),
        "" if port.link is None else "up" if port.link else "down",
        macs,
        who(seat),
        "  ".join(note for note in notes if note),
    )


def _notes(face: Face) -> list[str]:
    """What concerns the switch as a whole."""
    notes = []
    for supply in face.supplies:
        taken = "" if supply.consumption is None else f"{supply.consumption / 1000:.0f} of "
        which = "" if len(face.supplies) == 1 else f" for ports {ranges(supply.ports)}"
        notes.append(f"power: {taken}{supply.capacity / 1000:.0f} W{which}")
    if face.switch.power_budget:
        notes.append(f"power_budget: {face.switch.power_budget:g} W")
    if face.can.read_only:
        notes.append(f"its ports cannot be switched: {face.can.read_only}")
    return [*notes, *(f"warning: {text}" for text in face.can.warnings)]


def face_json(face: Face) -> dict[str, object]:
    """The same for scripts. The keys are a promise."""
    return {
        "switch": face.switch.index,
        "name": face.switch.name or None,
        "address": str(face.switch.address),
        "driver": face.can.driver,
        "read_only": face.can.read_only or None,
        "warnings": list(face.can.warnings),
        "supplies": [
            {
                "ports": sorted(supply.ports),
                "capacity_milliwatts": supply.capacity,
                "consumption_milliwatts": supply.consumption,
            }
            for supply in face.supplies
        ],
        "ports": [seat_json(seat) for seat in face.seats],
    }


def seat_json(seat: Seat) -> dict[str, object]:
    port = seat.port
    return {
        "port": port.number,
        "label": port.label,
        "alias": port.alias or None,
        "interface": port.if_name or None,
        "if_index": port.if_index,
        "poe": power_word(port),
        "poe_on": port.admin_on,
        "poe_index": ".".join(map(str, port.index)) or None,
        "class": port.power_class,
        "milliwatts": port.milliwatts,
        "milliwatts_source": port.source or None,
        "link": port.link,
        "macs": list(seat.macs),
        "pis": _names(seat.seen),
        "expected": seat.expected.name if seat.expected else None,
        "neighbour": port.neighbour.label if port.neighbour else None,
        "protected": seat.is_protected,
    }


def _names(hosts: Sequence[Host]) -> list[str]:
    return [host.name for host in hosts]
