"""Which ports may lose their power, and how many may start at once: rules over what a switch's face says. Pure.

A port that is refused says why. `force` lifts a refusal, but never makes a port of what is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from utility.drivers import Detection
from utility.switches import Port, PowerSupply

# What a switch sets aside for a class (IEEE 802.3 at the PSE), in milliwatts; class 0 says nothing of itself.
CLASS_MILLIWATTS = (15_400, 4_000, 7_000, 15_400, 30_000, 45_000, 60_000, 75_000, 90_000)
BOARD_MACS = 2  # more MACs than this on one port: a switch is behind it, not a Pi


@dataclass(frozen=True, slots=True)
class Guard:
    """What must not lose its power by mistake. `force`: do it all the same.

    own_macs   of this machine: the port that they are on is our way to the switch
    pi_macs    of the Pis: one that answers LLDP is no switch for that
    """

    own_macs: frozenset[str] = frozenset()
    pi_macs: frozenset[str] = frozenset()
    force: bool = False


def refusal(port: Port, macs: Collection[str], protected: Collection[int], guard: Guard) -> str:
    """Why the port is left alone; empty: it may be switched. `macs` are those that the switch has seen there."""
    if guard.force:
        return ""
    why = _reason(port, macs, protected, guard)
    return f"left alone: {why} (--force switches it all the same)" if why else ""


def _reason(port: Port, macs: Collection[str], protected: Collection[int], guard: Guard) -> str:
    neighbour = port.neighbour
    if port.number in protected:
        return "it is in protected_ports in config.yaml"
    if guard.own_macs & set(macs):
        return "this machine is behind it"
    if neighbour and neighbour.forwards and neighbour.mac not in guard.pi_macs:
        return f"it leads to {neighbour.label}, as LLDP says"
    if len(macs) > BOARD_MACS:
        return f"{len(macs)} MACs are behind it, so it leads to a switch"
    return ""


def needed(port: Port) -> int:
    """Milliwatts to reckon with while what is on the port starts: what its class may take, or else what it took."""
    if port.power_class is not None and port.power_class < len(CLASS_MILLIWATTS):
        return CLASS_MILLIWATTS[port.power_class]
    if port.milliwatts:
        return port.milliwatts * 3 // 2  # starting takes more than running
    return CLASS_MILLIWATTS[0]


def fits(port: Port, starting: Iterable[Port], supplies: Iterable[PowerSupply]) -> bool:
    """Whether one more port may start: what runs takes what it takes, what starts may take all of its `needed`.

    `starting` are as they are now, with the milliwatts that they take already.
    """
    starting = list(starting)
    for supply in supplies:
        if port.number not in supply.ports:
            continue
        ours = [each for each in starting if each.number in supply.ports]
        running = max(0, (supply.consumption or 0) - sum(each.milliwatts or 0 for each in ours))
        if running + sum(map(needed, ours)) + needed(port) > supply.capacity:
            return False
    return True


def total_supply(budget: int, ports: Sequence[Port], supplies: Sequence[PowerSupply]) -> PowerSupply:
    """The whole switch with what config.yaml says that it can give, in milliwatts."""
    told = [supply.consumption for supply in supplies]
    measured = [port.milliwatts for port in ports if port.milliwatts is not None]
    taken = sum(each or 0 for each in told) if told and None not in told else sum(measured) if measured else None
    return PowerSupply(frozenset(port.number for port in ports), budget, taken)


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for power to be taken, for a link to come back, and for one to come where there was none before."""

    power: float = 10.0
    link: float = 20.0  # a board's firmware has to wake first
    start: float = 0.0


def outcome(before: Port, now: Port, age: float, patience: Patience) -> str:
    """What has become of a port `age` seconds after it was turned on; empty: not settled yet."""
    if before.detection == Detection.SEARCHING:
        return "on; nothing took power there before"
    if now.detection not in {Detection.DELIVERING, Detection.UNKNOWN}:
        doing = now.detection.name.lower().replace("_", " ")
        return f"on, but nothing takes power there ({doing})" if age > patience.power else ""
    if before.link and not now.link:
        return f"on, but no link after {patience.link:g} s" if age > patience.link else ""
    return "power-cycled" if now.link or age >= patience.start else ""


def by_number(ports: Iterable[Port]) -> Mapping[int, Port]:
    return {port.number: port for port in ports}


def ranges(numbers: Iterable[int]) -> str:
    """`1-8, 11` for 1 to 8 and 11."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
