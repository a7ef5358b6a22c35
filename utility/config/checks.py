"""What the values of config.yaml must be to one another: whose address lies where, and that nobody has it twice."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from utility.config.settings import Config, Subnet
from utility.config.sheet import Sheet


def check_network(sheet: Sheet, config: Config) -> None:
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


def _check_inside(sheet: Sheet, key: str, address: IPv4Address, *networks: IPv4Network) -> None:
    network = next((each for each in networks if address in each), None)
    if network is None:
        which = "give an address of that network" if len(networks) == 1 else "give an address of one of these networks"
        sheet.wrong(key, f"{address} is outside {', '.join(map(str, networks))}; {which}")
    elif address == network.broadcast_address:
        sheet.wrong(key, f"{address} is the broadcast address of {network}")
    elif address == network.network_address:
        sheet.wrong(key, f"{address} is {network} itself; give the address of a machine")


def check_subnets(sheet: Sheet, config: Config, subnets: Mapping[str, Subnet]) -> None:
    seen: list[tuple[IPv4Network, str]] = [(config.network, "the network of server_address")]
    for key, subnet in subnets.items():
        _check_inside(sheet, f"{key}.router", subnet.router, subnet.network)
        for network, words in seen:
            if network.overlaps(subnet.network):
                sheet.wrong(f"{key}.network", f"{subnet.network} overlaps {network}, {words}")
        seen.append((subnet.network, key))
    if subnets and config.dhcp_mode == "proxy":
        sheet.wrong("subnets", "dhcp_mode proxy gives no addresses; remove these, or set server")


def check_pools(sheet: Sheet, config: Config, subnets: Mapping[str, Subnet]) -> None:
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


def check_pis(sheet: Sheet, config: Config) -> None:
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


def _line(sheet: Sheet, key: str) -> str:
    """` (line 7)`, for a value that stands in config.yaml."""
    place = sheet.places.get(key)
    return f" (line {place.line})" if place is not None and place.line else ""
