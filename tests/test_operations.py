"""Operations: what names and ports mean, and what becomes of orders and events. The switch is replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

import pytest

from monitoring import operations
from monitoring.directory import place_of, where_of
from monitoring.operations import (
    OperationError,
    Operations,
    Outcome,
    Search,
    Target,
    adopt,
    find_switch,
    host_on,
    judge_installs,
    look_for,
    parse_ports,
    resolve,
    strangers,
)
from monitoring.power import PowerOptions, hold_switch
from monitoring.store import PiRow, Place, Store
from tests.test_power_cycle import AUTO, OFF, STATIC, Bench
from utility.config import Config, Switch, load_config
from utility.findport import Sighting
from utility.hosts import Hosts
from utility.power_cycle import PortResult
from utility.service import Severity, Stage
from utility.switches import Neighbour, PoeSwitch, SwitchError

CONFIG = """\
private_number: 4
server_address: 127.0.0.1
subnet_mask: 255.0.0.0
interface: lo
switches:
  - name: left
    address: 127.0.4.254
    pi_addresses:
      - 127.0.4.13
      -
      - 127.0.4.15
  - address: 127.0.4.253
    pi_addresses: []
"""
HOSTS = "b8:27:eb:00:00:01;127.0.4.13;pi1;0\nb8:27:eb:00:00:03;127.0.4.15;pi3;0\n"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return load_config(tmp_path / "config.yaml", environ={})


@pytest.fixture
def hosts(tmp_path: Path, config: Config) -> Hosts:
    (tmp_path / "hosts.csv").write_text(HOSTS)
    return Hosts.open(tmp_path / "hosts.csv", config, write=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as store:
        yield store


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["2", "3"], [2, 3]),
        (["1-3,8"], [1, 2, 3, 8]),
        (["10"], [10]),
        (["3", "1-3"], [3, 1, 2]),
        (["5-4"], None),
        (["x"], None),
        (["1-"], None),
        (["-2"], None),
        (["1,,2"], None),
        ([""], None),
        (["1-99999999999"], None),
    ],
)
def test_ports(words: list[str], ports: list[int] | None) -> None:
    assert parse_ports(words) == ports


def test_switches_and_ports_by_name(config: Config, hosts: Hosts) -> None:
    assert find_switch(config, "0") is find_switch(config, "left") is find_switch(config, "127.0.4.254")
    assert find_switch(config, "2") is None
    left = config.switches[0]
    assert [host.name if (host := host_on(left, port, hosts)) else "" for port in range(5)] == [
        "",
        "pi1",
        "",
        "pi3",
        "",
    ]
    pi3 = hosts.named("pi3")
    assert pi3
    assert place_of(config, pi3) == (left, 3)


def test_what_a_command_acts_on(config: Config, hosts: Hosts) -> None:
    both = resolve(config, hosts, ["0", "1", "3"])
    assert [target.label for target in both] == ["pi1 (left port 1)", "pi3 (left port 3)"]
    assert [(t.switch.index, t.port) for t in resolve(config, hosts, ["pi3", "b8:27:eb:00:00:01"])] == [(0, 3), (0, 1)]
    assert resolve(config, hosts, ["0", "2"])[0].host is None
    with pytest.raises(OperationError, match=r"no switch '7'; known: 0 \(left\), 1 \(127.0.4.253\)"):
        resolve(config, hosts, ["7", "1"])
    with pytest.raises(OperationError, match=r"no Pi 'nobody' in hosts.csv; known: pi1, pi3"):
        resolve(config, hosts, ["nobody"])
    with pytest.raises(OperationError, match="which ports of switch 0"):
        resolve(config, hosts, ["0"])
    with pytest.raises(OperationError, match="no list of ports"):
        resolve(config, hosts, ["0", "1", "x"])


class Switched:
    """In the place of power_cycle: answers what `results` says for each port, or raises."""

    def __init__(self, results: dict[int, PortResult | BaseException]) -> None:
        self.results = results

    def __call__(
        self, poe: PoeSwitch, ports: list[int], *, on_progress: Callable[[int, str], None], **_: object
    ) -> object:
        done = []
        for port in ports:
            result = self.results[port]
            if isinstance(result, BaseException):
                raise result
            on_progress(port, "on")
            done.append(result)
        return done


@pytest.fixture
def acting(store: Store) -> Operations:
    return Operations(store, "ann", lambda _target, _text: None)


def test_an_interrupted_reinstall_takes_its_orders_back(
    config: Config, hosts: Hosts, store: Store, acting: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "power_cycle", Switched({1: KeyboardInterrupt(), 3: KeyboardInterrupt()}))
    with pytest.raises(KeyboardInterrupt):
        acting.reinstall(resolve(config, hosts, ["0", "1", "3"]))
    assert store.orders() == []
    assert [event.text for event in store.latest_events()][-1] == "reinstall cancelled: no power cycle"


def test_only_who_was_power_cycled_keeps_the_order(
    config: Config, hosts: Hosts, store: Store, acting: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    acting = Operations(store, "ann", lambda target, text: told.append(f"{target.label}: {text}"))
    results = {1: PortResult(1, ok=True, text="power-cycled"), 3: PortResult(3, ok=False, text="no")}
    monkeypatch.setattr(operations, "power_cycle", Switched(dict(results)))
    orders, outcomes = acting.reinstall(resolve(config, hosts, ["pi1", "pi3"]))
    assert [(each.target.port, each.ok, each.text) for each in outcomes] == [
        (1, True, "power-cycled"),
        (3, False, "no"),
    ]
    assert [(order.mac, order.token, order.by) for order in store.orders()] == [
        ("b8:27:eb:00:00:01", orders["b8:27:eb:00:00:01"], "ann")
    ]
    assert told == ["pi1 (left port 1): on", "pi3 (left port 3): on"]
    assert [power.mac for power in store.power_ons()] == ["b8:27:eb:00:00:01", "b8:27:eb:00:00:03"]
    assert [(event.severity, event.text) for event in store.latest_events("b8:27:eb:00:00:03")] == [
        (Severity.INFO, "reinstall ordered by ann"),
        (Severity.ERROR, "not power-cycled: no"),
        (Severity.ERROR, "reinstall cancelled: no power cycle"),
    ]


def test_a_switch_that_fails_fails_its_ports_and_no_others(
    config: Config, hosts: Hosts, acting: Operations, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = config.switches[0]
    silent = SwitchError(left, "", "no answer")
    monkeypatch.setattr(
        operations, "power_cycle", Switched({1: PortResult(1, ok=True, text="power-cycled"), 2: silent})
    )
    targets = [Target(config.switches[1], 1, None), Target(left, 2, None)]
    done = acting.cycle(targets)
    assert done == [
        Outcome(targets[0], ok=True, text="power-cycled"),
        Outcome(targets[1], ok=False, text="switch left (127.0.4.254): no answer"),
    ]


def test_a_port_without_a_pi_is_not_reinstalled(config: Config, hosts: Hosts, store: Store, acting: Operations) -> None:
    with pytest.raises(OperationError, match=r"left port 2: .* name no Pi there"):
        acting.reinstall(resolve(config, hosts, ["0", "1", "2"]))
    assert not store.orders()


def test_an_install_is_over_when_its_order_is(hosts: Hosts) -> None:
    one, three = hosts.all()
    orders = {one.mac: "aa", three.mac: "bb"}

    def judged(one_stage: Stage | None, pending: dict[str, str]) -> tuple[list[str], list[str]]:
        rows = {one.mac: PiRow(one.mac, stage=one_stage)}
        done, broken = judge_installs((one, three), rows, pending, orders)
        return [host.name for host in done], [host.name for host in broken]

    assert judged(Stage.IMAGE, {}) == ([], [])
    assert judged(Stage.UP, orders) == ([], [])  # what was on its card
    assert judged(Stage.UP, {one.mac: "cc"}) == (["pi1"], [])  # ordered again meanwhile, by somebody else
    assert judged(Stage.UP, {}) == (["pi1"], [])
    assert judged(Stage.FAILED, orders) == ([], ["pi1"])


def test_who_is_adopted(hosts: Hosts, tmp_path: Path) -> None:
    rows = [
        PiRow("b8:27:eb:00:00:01", facts={"serial": "1"}),  # known
        PiRow("e4:5f:01:00:00:09", facts={"serial": "91cdf03d"}),
        PiRow("00:16:3e:00:00:01", heard="DHCPDISCOVER"),  # somebody's PC
        PiRow("00:16:3e:00:00:02", facts={"waiting": "yes"}),
    ]
    assert strangers(hosts, rows) == ("e4:5f:01:00:00:09", "00:16:3e:00:00:02")
    assert adopt(hosts, "E4-5F-01-00-00-09").name == "pi-000009"
    assert "e4:5f:01:00:00:09;127.0.0.2;pi-000009;0" in (tmp_path / "hosts.csv").read_text()
    for words, usage in ((("nonsense",), True), (("e4:5f:01:00:00:09",), False), (("e4:5f:01:00:00:0a", "pi1"), False)):
        with pytest.raises(OperationError) as told:
            adopt(hosts, *words)
        assert told.value.usage is usage
    hosts.path.unlink()
    hosts.path.mkdir()
    with pytest.raises(OperationError, match=r"hosts\.csv"):
        adopt(hosts, "e4:5f:01:00:00:0b")


# ------------------------------------------------------------------------------------------- the power, with a switch


@pytest.fixture
def bench(config: Config, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The first switch; the second one does not answer."""
    bench = Bench()
    bench.switch = config.switches[0]

    def open_one(switch: Switch) -> PoeSwitch:
        if switch.index:
            raise SwitchError(switch, "", "no answer")
        return bench

    monkeypatch.setattr(operations, "open_switch", open_one)
    return bench


def test_ports_are_turned_off_and_on_in_somebodys_name(
    config: Config, hosts: Hosts, store: Store, acting: Operations, bench: Bench
) -> None:
    bench.neighbours = {2: Neighbour("sw2", "", "24")}
    targets = resolve(config, hosts, ["0", "1-2"])
    assert [each.ok for each in acting.turn(targets, False)] == [True, False]
    assert bench.settings == {1: OFF, 2: AUTO, 3: AUTO, 4: AUTO}
    assert [each.ok for each in acting.turn(targets, False, PowerOptions(force=True))] == [True, True]
    assert [each.text for each in acting.turn(targets, True)] == ["on", "on"]
    assert [event.text for event in store.latest_events("b8:27:eb:00:00:01")] == [
        "turned off by ann",
        "turned off by ann",
        "turned on by ann",
    ]


def test_our_own_port_is_left_alone(
    config: Config, hosts: Hosts, acting: Operations, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "own_macs", lambda: frozenset({"02:00:00:00:00:01"}))
    bench.seen = {1: frozenset({"02:00:00:00:00:01"})}
    [outcome] = acting.turn(resolve(config, hosts, ["0", "1"]), False)
    assert outcome.text == "left alone: this machine is behind it (--force switches it all the same)"


def test_what_was_left_off_is_turned_on_first(config: Config, hosts: Hosts, store: Store, bench: Bench) -> None:
    told: list[str] = []
    acting = Operations(store, "ann", lambda target, text: told.append(f"{target.label}: {text}"))
    assert acting.restore(config.switches) == []
    bench.settings |= {3: OFF, 4: OFF}
    store.add_intent("127.0.4.254", 4, 1.0, (1, 4), STATIC)
    store.add_intent("127.0.4.253", 1, 1.0)
    assert acting.restore(config.switches) == [
        "left port 4 was left off by a power cycle that died; it is on again",
        "switch 127.0.4.253: no answer; a port may still be off there",
    ]
    assert bench.settings == {1: AUTO, 2: AUTO, 3: OFF, 4: STATIC}
    store.add_intent("127.0.4.254", 3, 1.0, (1, 3))
    acting.turn([Target(config.switches[0], 1, None)], True)
    assert told[0] == "left port 3: left port 3 was left off by a power cycle that died; it is on again"
    assert bench.settings[3] == AUTO
    with hold_switch(store, config.switches[0]):
        store.add_intent("127.0.4.254", 3, 1.0)
        assert acting.restore(config.switches[:1]) == [], "somebody is at work on it"


def test_who_interrupts_waits_until_the_ports_are_on(
    config: Config, hosts: Hosts, store: Store, acting: Operations, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()

    def wait_twice(futures: Iterable[Future[list[Outcome]]]) -> None:
        monkeypatch.setattr(operations, "wait", wait)
        raise KeyboardInterrupt  # again

    def refuse(port: int, on: bool) -> str | None:
        if port == 3 and not on:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return None

    monkeypatch.setattr(operations, "wait", wait_twice)
    bench.refuse = refuse
    with pytest.raises(KeyboardInterrupt):
        acting.cycle(resolve(config, hosts, ["0", "1", "3"]), PowerOptions(off_time=30.0))
    assert time.monotonic() - began < 10
    assert [word for _, word, _ in bench.log] == ["off", "off", "on", "on"]
    assert bench.all_on()
    assert store.intents() == []


def test_one_at_a_time_switches_ports_of_a_switch(config: Config, hosts: Hosts, store: Store, bench: Bench) -> None:
    told: list[str] = []
    acting = Operations(store, "ann", lambda _target, text: told.append(text))
    with hold_switch(store, config.switches[0]):
        worker = threading.Thread(target=acting.turn, args=([Target(config.switches[0], 1, None)], False))
        worker.start()
        while not told:
            time.sleep(0.01)
        assert bench.log == []
    worker.join()
    assert told == ["waits: somebody else is switching ports there", "off"]


def test_ports_are_named_by_what_is_printed_at_them(config: Config, hosts: Hosts, bench: Bench) -> None:
    face = [replace(port, label=f"Gi1/0/{port.number}") for port in bench.ports()]
    bench.ports = lambda wanted=None: face  # type: ignore[method-assign]
    assert [target.port for target in resolve(config, hosts, ["left", "gi1/0/3", "1/0/1"])] == [3, 1]
    with pytest.raises(
        OperationError, match=r"^left has no port 'Gi2/0/1'; it has Gi1/0/1, Gi1/0/2, Gi1/0/3, Gi1/0/4$"
    ):
        resolve(config, hosts, ["left", "Gi2/0/1"])
    with pytest.raises(OperationError, match=r"^switch 127\.0\.4\.253: no answer$"):
        resolve(config, hosts, ["1", "2/1"])
    with pytest.raises(OperationError, match="is no list of ports"):
        resolve(config, hosts, ["left", "1/0/1", "x"])


# ------------------------------------------------------------------------------------------------------- where Pis are


def seen(switch: Switch, port: int, name: str = "1/3", **others: object) -> Sighting:
    return Sighting(switch, port, 100 + port, name, 1, **others)  # type: ignore[arg-type]


MAC = "b8:27:eb:00:00:03"


def test_why_a_search_found_no_port(config: Config) -> None:
    left, right = config.switches
    search = Search(MAC, config.switches, [seen(left, 3)], {})
    assert search.edge == seen(left, 3)
    none = "is the Pi powered, and did it send anything lately?"
    assert Search(MAC, config.switches, [], {}).why_not == f"{MAC} is on no port of 127.0.4.254, 127.0.4.253; {none}"
    assert Search(MAC, [], [], {}).why_not == f"{MAC} is on no port of no switch: config.yaml has none; {none}"
    twice = Search(MAC, config.switches, [seen(left, 3), seen(right, 4, "gi4")], {})
    assert twice.edge is None
    assert twice.why_not == (
        f"{MAC} is on left port 3 (1/3) and 127.0.4.253 port 4 (gi4), and nothing tells which is right: "
        "wait until the switches forget, or name the port"
    )
    trunk = Search(
        MAC, config.switches, [seen(left, 0, neighbour="core port 8"), seen(right, 0, "Po1", is_socket=False)], {}
    )
    assert trunk.why_not == (
        f"{MAC} is behind another switch, seen through left 1/3 to core port 8, 127.0.4.253 Po1: "
        "add that switch to config.yaml, or name its port"
    )


def test_a_search_of_switches_that_failed(config: Config) -> None:
    errors = {each.index: SwitchError(each, "", "no answer") for each in config.switches}
    both = Search(MAC, config.switches, [], errors)
    assert both.why_not == "switch left (127.0.4.254): no answer\nswitch 127.0.4.253: no answer"
    first, second = Search(MAC, config.switches, [], {0: errors[0]}).why_not.splitlines()
    assert (first, second[:46]) == (str(errors[0]), f"{MAC} is on no port of 127.0.4.253;"[:46])


def test_a_silent_pi_is_woken_twice(config: Config, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[float] = []
    answers: list[list[Sighting]] = [[], [seen(config.switches[0], 3)], [], []]
    monkeypatch.setattr(operations, "nudge", lambda _addresses, patience=0.2: woken.append(patience))
    monkeypatch.setattr(operations, "find_port", lambda *_words, **_options: answers.pop(0))
    host = hosts.find(MAC)
    assert look_for(config.switches, MAC, host).edge == seen(config.switches[0], 3)
    assert woken == [0.2, 1.0]
    assert look_for(config.switches, MAC, None).edge is None
    assert woken == [0.2, 1.0], "nobody knows the address of a MAC alone"
    assert answers == [[]]


def test_where_a_pi_is_by_config_yaml_or_else_as_the_switches_have_told(config: Config, hosts: Hosts) -> None:
    learnt = {
        MAC: Place(MAC, "127.0.4.253", 9),  # config.yaml knows better, or is told that it does not
        "b8:27:eb:00:00:04": Place("b8:27:eb:00:00:04", "127.0.4.253", 7),
        "b8:27:eb:00:00:05": Place("b8:27:eb:00:00:05", "127.0.9.9", 7),  # of a switch that is no more
    }
    assert where_of(config, hosts.all(), learnt) == {
        "b8:27:eb:00:00:01": (0, 1),
        MAC: (0, 3),
        "b8:27:eb:00:00:04": (1, 7),
    }
