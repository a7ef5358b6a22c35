"""A UniFi switch by way of its controller, which is the only one that the switch listens to.

A port's power is an override in the switch's configuration there; the list of overrides is written whole, so that of
the other ports is written back as it was read. What a port does comes from the switch's own reports, some seconds late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from utility.config import Controller, Switch
from utility.drivers import Detection
from utility.hosts import parse_mac
from utility.rest import RestClient, RestError
from utility.switches import Capabilities, Neighbour, Port, PowerSupply, SwitchError

Row = Mapping[str, object]

OFF, ON = "off", "auto"  # of poe_mode; there are others that are on as well
LAG = 40.0  # a switch reports every ten seconds or so, and takes its orders then


class UnifiSwitch:
    """A `PoeSwitch` by its controller: found there by its address."""

    def __init__(self, switch: Switch) -> None:
        assert switch.controller is not None, "config.yaml was checked for it"
        self.switch = switch
        self._access: Controller = switch.controller
        self._client = RestClient(self._access.url, self._access.fingerprint)
        self._prefix: str | None = None  # None: not logged in

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("unifi", lag=LAG)

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:  # noqa: ARG002
        device = self._device()
        neighbours = _neighbours(device)
        ports = []
        for number, row in _by_port(device.get("port_table"), "port_idx").items():
            index = (number,) if row.get("port_poe") else ()
            name = str(row.get("name") or f"Port {number}")
            ports.append(Port(number, name, index=index, if_name=name, neighbour=neighbours.get(number)))
        return _seen(device, sorted(ports, key=lambda port: port.number))

    def look(self, ports: Sequence[Port]) -> list[Port]:
        return _seen(self._device(), ports)

    def turn(self, port: Port, on: bool) -> None:
        device = self._device()
        mode = (port.setting if port.setting not in {OFF, None} else ON) if on else OFF
        overrides = [dict(row) for row in _rows(device.get("port_overrides"))]
        own = [row for row in overrides if row.get("port_idx") == port.number]
        if not own:
            overrides.append({"port_idx": port.number})
        for row in own or overrides[-1:]:
            row["poe_mode"] = mode
        path = f"/rest/device/{device.get('_id')}"
        self._ask("PUT", path, {"port_overrides": overrides}, port.number)

    def complaint(self, port: Port, reason: str) -> SwitchError:
        return SwitchError(self.switch, f"poe_mode at {self._access.url}", reason, port.number)

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:  # noqa: ARG002
        mac = _mac(self._device().get("mac"))
        found: dict[int, set[str]] = {}
        for row in self._data("/stat/sta"):
            port = row.get("sw_port")
            if isinstance(port, int) and _mac(row.get("sw_mac")) == mac and _mac(row.get("mac")):
                found.setdefault(port, set()).add(_mac(row.get("mac")))
        return {number: frozenset(macs) for number, macs in found.items()}

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:
        device = self._device()
        capacity, taken = _milliwatts(device.get("total_max_power")), _milliwatts(device.get("total_used_power"))
        powered = frozenset(port.number for port in ports if port.has_poe)
        return [PowerSupply(powered, capacity, taken)] if capacity and powered else []

    # -- the controller

    def _device(self) -> Row:
        """All that it knows of the switch."""
        address = str(self.switch.address)
        devices = self._data("/stat/device")
        for row in devices:
            if row.get("ip") == address:
                return row
        known = ", ".join(str(row.get("ip")) for row in devices) or "none"
        where = f"{self._access.url} site {self._access.site}"
        raise SwitchError(self.switch, "", f"{where} has no device of that address; it has {known}")

    def _data(self, path: str) -> list[Row]:
        answer = self._ask("GET", path, None)
        return _rows(answer.get("data")) if isinstance(answer, dict) else []

    def _ask(self, method: str, path: str, body: object, port: int | None = None) -> object:
        try:
            if self._prefix is None:
                self._prefix = self._log_in()
            return self._client.ask(method, f"{self._prefix}/api/s/{self._access.site}{path}", body)
        except RestError as error:
            raise SwitchError(self.switch, self._access.url, str(error), port) from error

    def _log_in(self) -> str:
        """What comes before the paths of that kind of controller."""
        login = {"username": self._access.user, "password": self._access.password}
        try:
            self._client.ask("POST", "/api/auth/login", login)
        except RestError as error:
            if error.status != 404:
                raise
            self._client.ask("POST", "/api/login", login)  # one that is not UniFi OS
            return ""
        return "/proxy/network"


def _seen(device: Row, ports: Sequence[Port]) -> list[Port]:
    """The ports as the controller has them: the order from the overrides, the rest from the switch's last report."""
    states = _by_port(device.get("port_table"), "port_idx")
    overrides = _by_port(device.get("port_overrides"), "port_idx")
    found = []
    for port in ports:
        row = states.get(port.number, {})
        now = replace(port, link=row.get("up") is True)
        if port.has_poe:
            mode = overrides.get(port.number, {}).get("poe_mode") or row.get("poe_mode")
            words = str(row.get("poe_class") or "").split()
            drawn = _milliwatts(row.get("poe_power"))
            now = replace(
                now,
                setting=mode if isinstance(mode, str) else None,
                admin_on=mode != OFF if isinstance(mode, str) else None,
                detection=Detection.DELIVERING
                if row.get("poe_good")
                else Detection.SEARCHING
                if mode != OFF
                else Detection.DISABLED,
                power_class=int(words[-1]) if words and words[-1].isdecimal() and len(words[-1]) == 1 else None,
                milliwatts=drawn,
                source="" if drawn is None else "measured",
            )
        found.append(now)
    return found


def _neighbours(device: Row) -> dict[int, Neighbour]:
    found = {}
    for number, row in _by_port(device.get("lldp_table"), "local_port_idx").items():
        name = str(row.get("system_name") or row.get("chassis_descr") or "")
        found[number] = Neighbour(name, _mac(row.get("chassis_id")), str(row.get("port_id") or ""))
    return found


def _by_port(value: object, key: str) -> dict[int, Row]:
    """The rows of a table that are about a port, by its number."""
    found = {}
    for row in _rows(value):
        number = row.get(key)
        if isinstance(number, int) and number > 0:
            found[int(number)] = row
    return found


def _rows(value: object) -> list[Row]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _milliwatts(value: object) -> int | None:
    """Watts as it writes them, a number or text."""
    try:
        watts = float(value) if isinstance(value, str | int | float) else -1.0
    except ValueError:
        return None
    return round(watts * 1000) if 0 <= watts < 10_000 else None


def _mac(value: object) -> str:
    try:
        return parse_mac(value) if isinstance(value, str) else ""
    except ValueError:
        return ""
