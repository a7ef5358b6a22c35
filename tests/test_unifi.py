"""Tests of utility.unifi against a stand-in for a UniFi controller, of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest

from tests.stand_in import Answer, StandIn
from utility.config import Controller, Switch
from utility.drivers import Detection
from utility.power_cycle import PortResult, power_cycle
from utility.switches import Neighbour, PoeSwitch, PowerSupply, SwitchError, open_switch

PI, SWITCH = "b8:27:eb:00:00:02", "fc:ec:da:00:00:01"


@dataclass
class UniFi:
    """A controller with one switch: two ports with PoE, a Pi on the second; an SFP port to another switch."""

    is_os: bool = True
    overrides: list[dict[str, object]] = field(
        default_factory=lambda: [{"port_idx": 2, "poe_mode": "pasv24", "name": "pi2"}, {"port_idx": 3, "name": "up"}]
    )

    def answer(self, method: str, path: str, body: object, headers: dict[str, str]) -> Answer:
        login = "/api/auth/login" if self.is_os else "/api/login"
        if path == login and method == "POST":
            right = body == {"username": "piman", "password": "sesame"}
            return (
                (200, {"meta": {"rc": "ok"}}) if right else (401, {"meta": {"rc": "error", "msg": "api.err.Invalid"}})
            )
        base = ("/proxy/network" if self.is_os else "") + "/api/s/lab"
        if "TOKEN=1" not in headers.get("Cookie", "") or not path.startswith(base):
            return 404, None
        match method, path.removeprefix(base), body:
            case "GET", "/stat/device", _:
                return 200, {"data": [{"ip": "172.30.4.2", "type": "uap"}, self.device()]}
            case "PUT", "/rest/device/5f", {"port_overrides": list(overrides)}:
                self.overrides = overrides
                return 200, {"data": []}
            case "GET", "/stat/sta", _:
                rows = [(PI, SWITCH, 2), ("b8:27:eb:00:00:09", "fc:ec:da:00:00:02", 2), ("nonsense", SWITCH, 1)]
                return 200, {"data": [{"mac": mac, "sw_mac": at, "sw_port": port} for mac, at, port in rows]}
        return 400, {"meta": {"rc": "error", "msg": "api.err.NotFound"}}

    def mode(self, port: int) -> str:
        return next(
            (str(row["poe_mode"]) for row in self.overrides if row["port_idx"] == port and "poe_mode" in row), "auto"
        )

    def device(self) -> dict[str, object]:
        on = self.mode(2) != "off"
        return {
            "_id": "5f", "ip": "172.30.4.9", "mac": SWITCH, "type": "usw",
            "port_overrides": self.overrides, "total_max_power": 52, "total_used_power": "3.91",
            "lldp_table": [{"local_port_idx": 3, "chassis_id": "02:00:00:00:00:fe", "port_id": "Gi0/1"}],
            "port_table": [
                {"port_idx": 1, "name": "Port 1", "port_poe": True, "poe_mode": "auto", "up": False, "poe_good": False,
                 "poe_class": "Unknown", "poe_power": "0.00"},
                {"port_idx": 3, "name": "SFP 1", "port_poe": False, "up": True},
                {"port_idx": 2, "name": "pi2", "port_poe": True, "poe_mode": "auto", "up": on, "poe_good": on,
                 "poe_class": "Class 4", "poe_power": "3.91" if on else "nan?"},
            ],
        }  # fmt: skip


@pytest.fixture(params=[True, False], ids=["UniFi OS", "controller"])
def unifi(request: pytest.FixtureRequest) -> UniFi:
    return UniFi(request.param)


@pytest.fixture
def poe(unifi: UniFi) -> Iterator[PoeSwitch]:
    with StandIn(unifi.answer, headers={"Set-Cookie": "TOKEN=1; path=/"}) as it:
        access = Controller(it.url, "piman", "sesame", "lab")
        with open_switch(Switch(0, IPv4Address("172.30.4.9"), driver="unifi", controller=access)) as opened:
            yield opened


def test_the_face(poe: PoeSwitch) -> None:
    first, second, uplink = poe.ports()
    assert (first.admin_on, first.detection, first.link, first.power_class) == (True, Detection.SEARCHING, False, None)
    assert (second.number, second.label, second.setting, second.detection) == (2, "pi2", "pasv24", Detection.DELIVERING)
    assert (second.power_class, second.milliwatts, second.source, second.link) == (4, 3910, "measured", True)
    assert (uplink.has_poe, uplink.admin_on, uplink.link) == (False, None, True)
    assert uplink.neighbour == Neighbour("", "02:00:00:00:00:fe", "Gi0/1")
    assert poe.macs() == {2: {PI}}
    assert poe.supplies([first, second, uplink]) == [PowerSupply(frozenset({1, 2}), 52_000, 3910)]
    assert poe.supplies([uplink]) == []
    assert (poe.capabilities.driver, poe.capabilities.lag > 10) == ("unifi", True)


def test_a_power_cycle_writes_the_other_overrides_back(poe: PoeSwitch, unifi: UniFi) -> None:
    assert power_cycle(poe, [2, 3], off_time=0) == [
        PortResult(2, ok=True, text="power-cycled"),
        PortResult(3, ok=False, text="SFP 1 has no PoE"),
    ]
    assert unifi.overrides == [{"port_idx": 2, "poe_mode": "pasv24", "name": "pi2"}, {"port_idx": 3, "name": "up"}]
    first = poe.ports()[0]
    poe.turn(first, False)
    assert unifi.overrides[-1] == {"port_idx": 1, "poe_mode": "off"}
    [off] = poe.look([first])
    assert (off.admin_on, off.detection) == (False, Detection.DISABLED)


def test_a_wrong_password_is_one_line(poe: PoeSwitch) -> None:
    access = poe.switch.controller
    assert access
    wrong = open_switch(replace(poe.switch, controller=replace(access, password="guess")))
    words = r"^switch 172\.30\.4\.9: http.*: does not let us in: are user and"
    with wrong, pytest.raises(SwitchError, match=words) as caught:
        wrong.ports()
    assert "guess" not in str(caught.value)


def test_a_switch_that_the_controller_does_not_know(poe: PoeSwitch) -> None:
    with (
        open_switch(replace(poe.switch, address=IPv4Address("172.30.4.77"))) as other,
        pytest.raises(
            SwitchError, match=r"site lab has no device of that address; it has 172\.30\.4\.2, 172\.30\.4\.9$"
        ),
    ):
        other.ports()


def test_an_order_that_is_refused_names_the_port(poe: PoeSwitch, unifi: UniFi) -> None:
    port = poe.ports()[1]
    unifi.device = lambda: {"_id": "other", "ip": "172.30.4.9"}  # type: ignore[method-assign]
    with pytest.raises(SwitchError, match=r"port 2: http.*: answers 400: api\.err\.NotFound"):
        poe.turn(port, False)
    assert str(poe.complaint(port, "no")).startswith("switch 172.30.4.9 port 2: poe_mode at http")
