"""Tests of utility.routeros against a stand-in for RouterOS 7's REST interface."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest

from tests.stand_in import Answer, StandIn
from utility.config import Controller, Switch
from utility.drivers import Detection
from utility.power_cycle import PortResult, power_cycle
from utility.switches import Neighbour, PoeSwitch, SwitchError, open_switch

PI, LOGIN = "B8:27:EB:00:00:02", base64.b64encode(b"piman:sesame").decode()


@dataclass
class RouterOs:
    """A CRS with three PoE ports, a Pi on the second and a switch on the SFP. Everything it says is text."""

    orders: dict[str, str] = field(
        default_factory=lambda: {"ether1": "auto-on", "ether2": "forced-on", "ether3": "off"}
    )
    told: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: object, headers: dict[str, str]) -> Answer:  # noqa: PLR0911
        if headers.get("Authorization") != f"Basic {LOGIN}":
            return 401, {"error": 401, "message": "Unauthorized"}
        match method, path.removeprefix("/rest"), body:
            case "GET", "/interface/ethernet", _:
                names = ["sfp1", "ether1", "ether2", "ether3"]
                return 200, [{".id": f"*{n}", "name": n, "running": self.running(n), "comment": ""} for n in names]
            case "GET", "/interface/ethernet/poe", _:
                return 200, [{".id": f"*{n}", "name": n, "poe-out": order} for n, order in self.orders.items()]
            case "POST", "/interface/ethernet/poe/monitor", {"numbers": str(numbers), "once": ""}:
                return 200, [self.state(name) for name in numbers.split(",")]
            case "POST", "/interface/ethernet/poe/set", {"numbers": str(name), "poe-out": str(order)}:
                self.told.append((name, order))
                self.orders[name] = order
                return 200, []
            case "GET", "/interface/bridge/host", _:
                rows = [
                    ("ether2", PI, "false"),
                    ("ether2", "nonsense", "false"),
                    ("ether1", "02:00:00:00:00:01", "true"),
                ]
                return 200, [{"on-interface": n, "mac-address": mac, "local": local} for n, mac, local in rows]
            case "GET", "/ip/neighbor", _:
                row = {"interface": "sfp1,bridge", "identity": "core", "mac-address": "02:00:00:00:00:FE"}
                return 200, [{**row, "interface-name": "Gi0/1", "system-caps-enabled": "bridge"}]
        return 400, {"error": 400, "message": "Bad Request", "detail": "no such command"}

    def running(self, name: str) -> str:
        return "true" if name == "sfp1" or (name == "ether2" and self.orders[name] != "off") else "false"

    def state(self, name: str) -> dict[str, str]:
        row = {"name": name, "poe-out": self.orders[name]}
        if self.orders[name] == "off":
            return row | {"poe-out-status": "disabled"}
        if name == "ether2":
            return row | {"poe-out-status": "powered-on", "poe-out-power": "3.9"}
        return row | {"poe-out-status": "short-circuit" if name == "ether1" else "waiting-for-load"}


@pytest.fixture
def routeros() -> RouterOs:
    return RouterOs()


@pytest.fixture
def poe(routeros: RouterOs) -> Iterator[PoeSwitch]:
    with StandIn(routeros.answer) as it:
        access = Controller(it.url, "piman", "sesame")
        with open_switch(Switch(0, IPv4Address("172.30.4.10"), driver="routeros", controller=access)) as opened:
            yield opened


def test_the_face(poe: PoeSwitch) -> None:
    first, second, third, uplink = poe.ports()
    assert [port.number for port in (first, second, third, uplink)] == [1, 2, 3, 4]
    assert (second.label, second.admin_on, second.setting, second.detection) == (
        "ether2", True, "forced-on", Detection.DELIVERING,
    )  # fmt: skip
    assert (second.milliwatts, second.source, second.link) == (3900, "measured", True)
    assert (first.detection, first.milliwatts, first.source, first.link) == (Detection.FAULT, None, "", False)
    assert (third.admin_on, third.detection) == (False, Detection.DISABLED)
    assert (uplink.label, uplink.has_poe, uplink.admin_on, uplink.link) == ("sfp1", False, None, True)
    assert uplink.neighbour == Neighbour("core", "02:00:00:00:00:fe", "Gi0/1")
    assert poe.macs() == {2: {PI.lower()}}
    assert poe.capabilities.driver == "routeros"
    assert poe.supplies(poe.ports()) == []
    assert poe.look([uplink]) == [uplink]


def test_a_power_cycle_gives_back_what_was_set(poe: PoeSwitch, routeros: RouterOs) -> None:
    now = itertools.count()
    results = power_cycle(poe, [2, 3, 4], 0, 0, wait=lambda _seconds: None, clock=lambda: next(now))
    assert results[0] == PortResult(2, ok=True, text="power-cycled")
    assert results[2] == PortResult(4, ok=False, text="sfp1 has no PoE")
    assert routeros.told == [("ether2", "off"), ("ether3", "off"), ("ether2", "forced-on"), ("ether3", "auto-on")]


def test_a_wrong_password_is_one_line(poe: PoeSwitch) -> None:
    access = poe.switch.controller
    assert access
    wrong = open_switch(replace(poe.switch, controller=replace(access, password="guess")))
    with wrong, pytest.raises(SwitchError) as caught:
        wrong.ports()
    assert str(caught.value) == (
        "switch 172.30.4.10: /interface/ethernet: does not let us in: are user and password right, and may that user"
        " change ports?"
    )


def test_an_order_that_is_refused_names_the_port(poe: PoeSwitch, routeros: RouterOs) -> None:
    port = poe.ports()[1]
    with pytest.raises(SwitchError, match=r"port 2: /interface/ethernet/poe/set: answers 400: no such command"):
        poe.turn(replace(port, setting=7), True)
    assert str(poe.complaint(port, "no")) == "switch 172.30.4.10 port 2: /interface/ethernet/poe ether2: no"
