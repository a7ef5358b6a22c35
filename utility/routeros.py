"""A MikroTik switch over RouterOS's REST interface (version 7), since its SNMP shows PoE and lets nobody set it."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from utility.config import Switch
from utility.drivers import Detection
from utility.hosts import parse_mac
from utility.rest import RestClient, RestError
from utility.snmp_switch import label_numbers, number_ports
from utility.switches import Capabilities, Neighbour, Port, PowerSupply, SwitchError

Row = Mapping[str, str]

POE = "/interface/ethernet/poe"
OFF, ON = "off", "auto-on"  # and forced-on, which is on as well
STATES = {
    "powered-on": Detection.DELIVERING,
    "waiting-for-load": Detection.SEARCHING,
    "disabled": Detection.DISABLED,
}


class RouterOsSwitch:
    """A `PoeSwitch` over REST."""

    def __init__(self, switch: Switch) -> None:
        access = switch.controller
        assert access is not None, "config.yaml was checked for it"
        self.switch = switch
        login = base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
        self._client = RestClient(access.url, access.fingerprint, {"Authorization": f"Basic {login}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("routeros")

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:  # noqa: ARG002
        sockets = {row["name"]: row for row in self._rows("GET", "/interface/ethernet") if row.get("name")}
        powered = [row["name"] for row in self._rows("GET", POE) if row.get("name") in sockets]
        others = [name for name in sockets if name not in powered]
        numbers, rest = number_ports([((label_numbers(name) or (0,))[-1:], name) for name in powered], others)
        neighbours = self._neighbours()
        ports = [
            Port(number, name, index=(number,), if_name=name, alias=sockets[name].get("comment", ""))
            for number, name in zip(numbers, powered, strict=True)
        ]
        ports += [Port(number, name, if_name=name) for number, name in zip(rest, others, strict=True)]
        ports = self.look([replace(port, neighbour=neighbours.get(port.if_name)) for port in ports])
        return sorted(ports, key=lambda port: port.number)

    def look(self, ports: Sequence[Port]) -> list[Port]:
        powered = ",".join(port.if_name for port in ports if port.has_poe)
        orders = {row.get("name", ""): row for row in self._rows("GET", POE)} if powered else {}
        states = self._rows("POST", f"{POE}/monitor", {"numbers": powered, "once": ""}) if powered else []
        seen = {row.get("name", ""): row for row in states}
        links = {row.get("name", ""): row.get("running") == "true" for row in self._rows("GET", "/interface/ethernet")}
        found = []
        for port in ports:
            now = replace(port, link=links.get(port.if_name))
            if port.has_poe:
                now = _with_power(now, orders.get(port.if_name, {}), seen.get(port.if_name, {}))
            found.append(now)
        return found

    def turn(self, port: Port, on: bool) -> None:
        setting = (port.setting if port.setting not in {OFF, None} else ON) if on else OFF
        self._ask("POST", f"{POE}/set", {"numbers": port.if_name, "poe-out": setting}, port.number)

    def complaint(self, port: Port, reason: str) -> SwitchError:
        return SwitchError(self.switch, f"{POE} {port.if_name}", reason, port.number)

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:
        numbers = {port.if_name: port.number for port in (self.ports() if ports is None else ports)}
        found: dict[int, set[str]] = {}
        for row in self._rows("GET", "/interface/bridge/host"):
            port, mac = numbers.get(row.get("on-interface", "")), _mac(row.get("mac-address", ""))
            if port is not None and row.get("local") != "true" and mac:
                found.setdefault(port, set()).add(mac)
        return {number: frozenset(macs) for number, macs in found.items()}

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:  # noqa: ARG002
        return []

    def _neighbours(self) -> dict[str, Neighbour]:
        found = {}
        for row in self._rows("GET", "/ip/neighbor"):
            can = row.get("system-caps-enabled", "")
            # It may be heard on the bridge, which is named after the port: "ether3,bridge".
            for name in row.get("interface", "").split(","):
                found[name] = Neighbour(
                    row.get("identity", ""),
                    _mac(row.get("mac-address", "")),
                    row.get("interface-name", ""),
                    row.get("system-description", ""),
                    forwards=not can or "bridge" in can or "router" in can,
                )
        return found

    def _rows(self, method: str, path: str, body: object = None) -> list[Row]:
        answer = self._ask(method, path, body)
        rows = answer if isinstance(answer, list) else []
        return [{str(key): str(value) for key, value in row.items()} for row in rows if isinstance(row, dict)]

    def _ask(self, method: str, path: str, body: object, port: int | None = None) -> object:
        try:
            return self._client.ask(method, f"/rest{path}", body)
        except RestError as error:
            raise SwitchError(self.switch, path, str(error), port) from error


def _with_power(port: Port, order: Row, state: Row) -> Port:
    setting = order.get("poe-out")
    status = state.get("poe-out-status", "")
    try:
        milliwatts = round(float(state["poe-out-power"].rstrip("W")) * 1000)
    except (KeyError, ValueError, OverflowError):
        milliwatts = None
    return replace(
        port,
        setting=setting,
        admin_on=None if setting is None else setting != OFF,
        detection=STATES.get(status, Detection.FAULT if status else Detection.UNKNOWN),
        milliwatts=milliwatts,
        source="" if milliwatts is None else "measured",
    )


def _mac(text: str) -> str:
    try:
        return parse_mac(text)
    except ValueError:
        return ""
