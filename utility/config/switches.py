"""The sections `snmp`, `drivers` and `switches` of config.yaml, read from their sheet. No file here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

import yaml

from utility.config import kinds
from utility.config.keys import CONTROLLER, DRIVER, EXEC, PASSWORDS, SNMP, SWITCH, SWITCH_VARIABLE, VARIABLES
from utility.config.settings import HOW, Commands, Controller, SnmpAccess, Switch
from utility.config.sheet import Section, Sheet, is_empty, kind_of
from utility.drivers import DRIVERS, FDB_MODES, INDEX_RULES, SOURCES, STANDARD, Detection, Driver, Supply, Watts

_STATES = {
    "disabled": Detection.DISABLED,
    "searching": Detection.SEARCHING,
    "delivering": Detection.DELIVERING,
    "fault": Detection.FAULT,
}


def read_snmp(section: Section, base: SnmpAccess, number: int | None) -> SnmpAccess:
    def community(name: str, default: str) -> str:
        return section.value(name, kinds.community, default).replace("{private_number}", str(number or 0))

    return SnmpAccess(
        version=section.value("version", kinds.choice("1", "2c", "3"), base.version),
        read_community=community("read_community", base.read_community),
        write_community=community("write_community", base.write_community),
        port=section.value("port", kinds.whole(1, 65535), base.port),
        timeout=section.value("timeout", kinds.number(0.1, 60, " of seconds"), base.timeout),
        retries=section.value("retries", kinds.whole(0, 10), base.retries),
        bulk=section.value("bulk", kinds.flag, base.bulk),
        user=section.value("user", kinds.user, base.user),
        auth_protocol=section.value("auth_protocol", kinds.auth_protocol, base.auth_protocol),
        priv_protocol=section.value("priv_protocol", kinds.priv_protocol, base.priv_protocol),
        auth_password=section.value("auth_password", kinds.password, base.auth_password),
        priv_password=section.value("priv_password", kinds.password, base.priv_password),
    )


def _read_access(section: Section, base: SnmpAccess, number: int | None) -> SnmpAccess:
    """Of a switch."""
    access = read_snmp(section, base, number)
    _check_user(section, access)
    return access


def _check_user(section: Section, access: SnmpAccess) -> None:
    """What version 3 needs of a switch's access, where it is spoken."""
    sheet, over = section.sheet, section.over or ""
    others = (section.path, over, *(f"PIMAN_SNMP_{each}".upper() for each in ("user", *PASSWORDS)))
    if access.version != "3" or any(problem.key.startswith(others) for problem in sheet.problems):
        return  # a value that was refused is not a missing one
    own = section.key("version")
    place = sheet.places.get(own) or sheet.places.get("snmp.version") or section.start
    where = f"put PIMAN_SNMP_{{0}}=... (or {over}{{0}} for this switch alone) into .env"
    if not access.user:
        sheet.problem(place, f"version 3 needs a user; give `user:`, or {where.format('USER')}")
    if access.priv_protocol != "none" and access.auth_protocol == "none":
        sheet.problem(place, "priv_protocol needs an auth_protocol; set it, or priv_protocol none too")
    for name, protocol in (("auth", access.auth_protocol), ("priv", access.priv_protocol)):
        if protocol != "none" and not getattr(access, f"{name}_password"):
            what = f"no password for {name}_protocol {protocol}"
            sheet.problem(place, f"{what}; {where.format(f'{name}_password'.upper())}, or set {name}_protocol none")


def read_drivers(top: Section) -> tuple[Driver, ...]:
    """The rows that a user adds to drivers.py; each may begin as one that is there."""
    node = top.nodes.get("drivers")
    names = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    table = top.section("drivers", [name for name in names if isinstance(name, str)])
    known = {row.name: row for row in (*DRIVERS, STANDARD)}
    read: dict[str, Driver] = {}
    for name in table.nodes:
        section = table.section(name, DRIVER)
        try:
            kinds.driver_name(name)
        except ValueError as error:
            table.sheet.problem(section.start, str(error))
        if name in known or name in (*HOW, "auto", "snmp"):
            table.sheet.problem(section.start, "is the name of a driver that is there; give it another, and `like:`")
        like = section.value("like", kinds.choice(*sorted({**known, **read})), "standard")
        read[name] = _read_driver(section, name, read.get(like) or known[like])
    return tuple(read.values())


def _read_driver(section: Section, name: str, base: Driver) -> Driver:
    whole, unit = kinds.whole(0, 2**31 - 1), kinds.whole(1, 1_000_000)
    watts = base.watts
    column = section.value("watts", kinds.object_id, watts[0].column if watts else None)
    if column is not None:
        first = watts[0] if watts else Watts(column)
        own = Watts(
            column,
            section.value("watts_unit", unit, first.milliwatts),
            section.value("watts_source", kinds.choice(*SOURCES), first.source),
            section.value("watts_by_port", kinds.flag, first.by_port),
        )
        watts = (own,) if "watts" in section.nodes else (own, *watts[1:])
    given = section.section("states", _STATES)
    states = {value: meaning for word, meaning in _STATES.items() for value in given.values(word, kinds.column_value)}
    driver = replace(
        base,
        name=name,
        object_ids=section.values("object_id", kinds.object_id),
        admin=section.value("admin", kinds.object_id, base.admin),
        on=section.value("on", whole, base.on),
        off=section.value("off", whole, base.off),
        also_on=section.values("also_on", whole) or base.also_on,
        index=section.values("index", kinds.choice(*INDEX_RULES)) or base.index,
        detection=section.value("detection", kinds.object_id, base.detection),
        states=states or base.states,
        power_class=section.value("power_class", kinds.object_id, base.power_class),
        class_zero=section.value("class_zero", kinds.whole(0, 1), base.class_zero),
        watts=watts,
        supply=Supply(
            section.value("capacity", kinds.object_id, base.supply.capacity),
            section.value("consumption", kinds.object_id, base.supply.consumption),
            section.value("capacity_unit", unit, base.supply.capacity_unit),
            section.value("consumption_unit", unit, base.supply.consumption_unit),
        ),
        fdb=section.value("fdb", kinds.choice(*FDB_MODES), base.fdb),
        read_only=section.value("read_only", kinds.text, base.read_only),
    )
    if driver.off in (driver.on, *driver.also_on):
        section.sheet.problem(section.start, f"{driver.off} is off, and it is on as well")
    return driver


def read_switches(
    top: Section, snmp: SnmpAccess, number: int | None, drivers: tuple[Driver, ...]
) -> tuple[Switch, ...]:
    sheet, node = top.sheet, top.nodes.get("switches")
    if not isinstance(node, yaml.SequenceNode):
        place = top.start if node is None else sheet.place(node, "")
        found = "is missing" if node is None else "is empty" if is_empty(node) else f"found {kind_of(node)}"
        sheet.problem(replace(place, key="switches"), f"{found}; expected a list of switches, or [] for none")
        return ()
    count = top.value("switch_count", kinds.whole(0, 1000), None)
    if count is not None and count != len(node.value):
        sheet.wrong("switch_count", f"found {count}; expected {len(node.value)}, the number of switches in the list")
    switches = tuple(
        replace(_read_switch(sheet, each, i, snmp, number, drivers), drivers=drivers)
        for i, each in enumerate(node.value)
    )
    _check_variables(sheet, switches)
    return switches


def _variable_name(index: int, name: str) -> str:
    """How a switch is called in the names of its variables."""
    return name.upper().replace("-", "_") or str(index)


def _check_variables(sheet: Sheet, switches: tuple[Switch, ...]) -> None:
    """A variable of a switch that is not there, or of two, is a mistake."""
    known = [_variable_name(switch.index, switch.name) for switch in switches]
    for variable, given in sheet.variables.items():
        of_switch = SWITCH_VARIABLE.fullmatch(variable)
        if variable in VARIABLES or not of_switch:
            continue
        name, count = of_switch[1], known.count(of_switch[1])
        if count == 0:
            sheet.problem(given.place, f"there is no switch {name}; known here: {', '.join(known)}")
        elif count > 1:
            sheet.problem(given.place, f"{count} switches are called {name} here; rename one")


def _read_switch(
    sheet: Sheet, node: yaml.Node, index: int, snmp: SnmpAccess, number: int | None, drivers: tuple[Driver, ...]
) -> Switch:
    # The first release misspelt the key, and its files are in the field.
    names = (f"swtich_{index}_address", f"switch_{index}_address", "switch_address", "address")
    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    others = [key for key in keys if isinstance(key, str) and re.fullmatch(r"sw(ti|it)ch_[0-9]{1,9}_address", key)]
    section = Section(sheet, node, f"switches[{index}]", (*names, *SWITCH, *others))
    found = [name for name in section.nodes if name not in SWITCH]
    if found and found[0] not in names:
        sheet.wrong(section.key(found[0]), f"this is switch {index}, counted from 0; expected {names[0]}, or address")
    for extra in found[1:]:
        sheet.wrong(section.key(extra), f"is a second address; the first is {found[0]}")
    address = section.required(
        found[0] if found else names[0], kinds.address, "the switch's address, like 172.30.4.254"
    )
    if address is not None:
        sheet.places[section.path] = sheet.places[section.key(found[0])]
    name = section.value("name", kinds.switch_name, "")
    own = f"PIMAN_SNMP_{_variable_name(index, name)}_"
    access = section.section("snmp", SNMP, own)
    rows = [*(row.name for row in (*drivers, *DRIVERS)), "standard"]
    driver = section.value("driver", kinds.choice("auto", "snmp", *rows, *HOW), "auto")
    return Switch(
        index=index,
        address=address or IPv4Address(0),
        name=name,
        pi_addresses=tuple(section.read(given, kinds.address, None) for given in section.items("pi_addresses")),
        snmp=_read_access(access, snmp, number),
        off_time=section.value("off_time", kinds.number(0.5, 300, " of seconds"), 5.0),
        power_budget=section.value("power_budget", kinds.number(1, 100_000, " of watts"), 0.0),
        protected_ports=frozenset().union(*section.values("protected_ports", kinds.ports)),
        driver="auto" if driver == "snmp" else driver,
        commands=_read_commands(section, driver),
        controller=_read_controller(section, driver, address),
    )


def _read_commands(switch: Section, driver: str) -> Commands | None:
    """The section `exec:`, which belongs to that driver, as that driver needs it."""
    section = switch.section("exec", EXEC)
    if driver != "exec":
        if "exec" in switch.nodes:
            switch.sheet.wrong(switch.key("exec"), "is there, but the driver is another; add `driver: exec`")
        return None
    if "exec" not in switch.nodes:
        switch.sheet.wrong(switch.key("driver"), "exec needs the section `exec:` with on, off, status and ports")
        return None
    ports = section.required("ports", kinds.whole(1, 1024), "how many ports there are")
    read = {}
    for name in ("on", "off", "status"):
        read[name] = section.required(name, kinds.command, "a command, like `ssh poe@{address} poe {port} on`") or ""
        if read[name] and "{port}" not in read[name] and ports != 1:
            section.sheet.wrong(section.key(name), "has no {port} in it, so it would do all ports")
    return Commands(
        **read, ports=ports or 1, timeout=section.value("timeout", kinds.number(1, 600, " of seconds"), 30.0)
    )


def _read_controller(switch: Section, driver: str, address: IPv4Address | None) -> Controller | None:
    """The section `unifi:` or `routeros:`, of which the driver's own is read."""
    for name in ("unifi", "routeros"):
        if name in switch.nodes and name != driver:
            switch.sheet.wrong(switch.key(name), f"is there, but the driver is another; add `driver: {name}`")
    if driver not in ("unifi", "routeros"):
        return None
    section = switch.section(driver, CONTROLLER)
    if driver == "unifi" and "unifi" not in switch.nodes:
        switch.sheet.wrong(switch.key("driver"), "unifi needs the section `unifi:` with the controller's `server:`")
        url = ""
    elif driver == "unifi":
        url = section.required("server", kinds.base_url, "the controller's address, like https://172.30.4.2:8443") or ""
    else:
        url = section.value("server", kinds.base_url, f"https://{address}")
    return Controller(
        url=url,
        user=section.value("user", kinds.user, "piman"),
        site=section.value("site", kinds.unifi_site, "default"),
        fingerprint=section.value("fingerprint", kinds.fingerprint, ""),
    )


def with_password(switch: Switch, passwords: Mapping[str, str]) -> Switch:
    """A controller's password is in .env, as all secrets are."""
    if switch.controller is None:
        return switch
    return replace(switch, controller=replace(switch.controller, password=passwords[f"{switch.driver}_password"]))
