"""The whole of config.yaml: text to Config. What is in its longer sections is read by switches.py and monitoring.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import yaml

from utility.config import kinds
from utility.config.checks import check_network, check_pis, check_pools, check_subnets
from utility.config.keys import (
    ALERT_SECRETS,
    CONTROLLER_SECRETS,
    MONITORING,
    MONITORING_SECTIONS,
    PORTS,
    SNMP,
    SUBNET,
    SWITCH_VARIABLE,
    TOP,
    TOP_SECTIONS,
    VARIABLES,
    WEB,
)
from utility.config.monitoring import read_monitoring
from utility.config.settings import SERVICES, Config, ConfigError, Ports, SnmpAccess, Subnet, Web
from utility.config.sheet import Given, Place, Section, Sheet, is_empty, kind_of, read_env_file, read_yaml
from utility.config.switches import read_drivers, read_snmp, read_switches, with_password


def load_config(
    path: Path, env_file: Path | None = None, environ: Mapping[str, str] | None = None, data: bytes | None = None
) -> Config:
    """Read config.yaml, .env and the environment; raises ConfigError with every problem.

    `env_file` None: the .env beside config.yaml, which may be missing. `environ` None: the process's. `data` is read in
    place of what is in the file, to try it.
    A PIMAN_ variable's relative path starts at the .env file's folder, or at the current one.
    """
    environ = os.environ if environ is None else environ
    sheet = Sheet(path, data)
    read_env_file(sheet, path.parent / ".env" if env_file is None else env_file, env_file is not None)
    for name in environ:
        if environ[name] and (name in VARIABLES or SWITCH_VARIABLE.fullmatch(name)):
            sheet.variables[name] = Given(environ[name], Place(Path("environment"), 0, name), Path.cwd())
    root = read_yaml(sheet)
    config = None if root is None else _read_config(sheet, root, environ)
    if config is None or sheet.problems:
        order = {path: -2, Path("environment"): 0}
        raise ConfigError(tuple(sorted(sheet.problems, key=lambda p: (order.get(p.file, -1), p.line))))
    return config


def _read_config(sheet: Sheet, root: yaml.Node, environ: Mapping[str, str]) -> Config | None:
    """The whole file; None where the base of the network has a problem. Other problems are only collected."""
    top = Section(sheet, root, "", (*TOP, *TOP_SECTIONS), "PIMAN_")
    number = top.required("private_number", kinds.whole(0, 4094), "the number of the VLAN, like 4")
    server = top.required("server_address", kinds.address, "the manager's address, like 172.30.4.1")
    prefix = top.required("subnet_mask", kinds.mask, "a mask, like 255.255.255.0")
    interface = top.required("interface", kinds.interface, "a network interface's name, like eth0")
    snmp = read_snmp(top.section("snmp", SNMP), SnmpAccess(), number)
    drivers = read_drivers(top)
    passwords = {each: top.value(each, kinds.text, "") for each in CONTROLLER_SECRETS}
    switches = tuple(with_password(each, passwords) for each in read_switches(top, snmp, number, drivers))
    boot_dir = top.path_of("boot_dir", "install/boot")
    service_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): more than one, colons between
    state_dir = top.path_of("state_dir", "state")
    services = top.values("services", kinds.choice(*SERVICES))
    stratum: int | None = 10
    config = Config(
        path=sheet.path.absolute(),
        private_number=number or 0,
        server_address=server or IPv4Address(0),
        network=IPv4Network((int(server or 0), 30 if prefix is None else prefix), strict=False),
        interface=interface or "",
        switches=switches,
        boot_dir=boot_dir,
        image=_read_image(top, boot_dir),
        state_dir=Path(service_dir).absolute() if service_dir else state_dir,
        log_dir=top.path_of("log_dir", "logs"),
        site=top.value("site", kinds.site_name, ""),
        lease_time=top.value("lease_time", kinds.whole(10, 31_536_000), 600),
        router=top.value("router", kinds.address, None),
        dns=top.values("dns", kinds.address),
        domain=top.value("domain", kinds.domain, ""),
        ntp_servers=top.values("ntp_servers", kinds.address),
        ports=_read_ports(top.section("ports", PORTS)),
        services=tuple(dict.fromkeys(services)) or SERVICES,
        subnets=(),
        dhcp_mode=top.value("dhcp_mode", kinds.choice("server", "proxy"), "server"),
        reply_delay=top.value("reply_delay", kinds.or_word("auto", kinds.number(0, 10, " of seconds")), None),
        unknown_pis=top.value("unknown_pis", kinds.choice("ignore", "pool", "approve"), "ignore"),
        pool=top.value("pool", kinds.pool, None),
        serve_firmware_updates=_read_boards(top, "serve_firmware_updates"),
        local_stratum=top.value("local_stratum", kinds.or_word("none", kinds.whole(1, 15)), stratum),
        ntp_rate_limit=top.value("ntp_rate_limit", kinds.or_word("none", kinds.number(0.1, 3600, " of seconds")), None),
        snmp=snmp,
        monitoring=read_monitoring(
            top.section("monitoring", (*MONITORING, *MONITORING_SECTIONS)),
            {each: top.value(each, kinds.text, "") for each in ALERT_SECRETS},
        ),
        web=_read_web(top.section("web", WEB)),
        slack_webhook=top.value("slack_webhook", kinds.text, ""),
        web_password=top.value("web_password", kinds.text, ""),
    )
    if server is None or prefix is None:
        return None
    subnets = _read_subnets(top, config)
    config = replace(config, subnets=tuple(subnets.values()))
    check_network(sheet, config)
    check_subnets(sheet, config, subnets)
    check_pis(sheet, config)
    check_pools(sheet, config, subnets)
    return config


def _read_boards(top: Section, name: str) -> bool | frozenset[str]:
    """`true`, `false`, or those boards for which it is true."""
    given = [each for each in top.items(name) if each is not None]
    if len(given) == 1 and given[0].text.lower() in ("true", "false"):
        return given[0].text.lower() == "true"
    return frozenset(top.values(name, kinds.board)) or False


def _read_subnets(top: Section, config: Config) -> dict[str, Subnet]:
    """The subnets by their keys."""
    sheet, node = top.sheet, top.nodes.get("subnets")
    if node is None or is_empty(node):
        return {}
    if not isinstance(node, yaml.SequenceNode):
        sheet.problem(sheet.place(node, "subnets"), f"found {kind_of(node)}; expected a list of networks")
        return {}
    sheet.places["subnets"] = sheet.place(node, "subnets")
    read = {f"subnets[{i}]": _read_subnet(sheet, each, f"subnets[{i}]", config) for i, each in enumerate(node.value)}
    return {key: subnet for key, subnet in read.items() if subnet is not None}


def _read_subnet(sheet: Sheet, node: yaml.Node, path: str, config: Config) -> Subnet | None:
    """One entry; what it does not say of leases is as in the manager's network. None: there is no network in it."""
    section = Section(sheet, node, path, SUBNET)
    network = section.required("network", kinds.network, "a network, like 10.2.0.0/24")
    router = section.required("router", kinds.address, "its router, by which its Pis reach this manager")
    given, mask = section.given("network"), section.value("subnet_mask", kinds.mask, None)
    if network is not None and mask is not None and given is not None and "/" not in given.text:
        network = IPv4Network((int(network.network_address), mask), strict=False)
    elif network is not None and given is not None and "/" not in given.text:
        sheet.wrong(f"{path}.network", f"found {given.text!r}; expected its size with it, like {given.text}/24")
        network = None
    if network is None or router is None:
        return None
    return Subnet(
        network=network,
        router=router,
        lease_time=section.value("lease_time", kinds.whole(10, 31_536_000), config.lease_time),
        dns=section.values("dns", kinds.address) or config.dns,
        domain=section.value("domain", kinds.domain, config.domain),
        ntp_servers=section.values("ntp_servers", kinds.address) or config.ntp_servers,
        pool=section.value("pool", kinds.pool, None),
    )


def _read_image(top: Section, boot_dir: Path) -> Path:
    """A bare name is looked for in boot_dir, as the default is; anything else is a path."""
    given = top.given("image")
    if given is None or "/" not in given.text:
        return boot_dir / (given.text if given else "rootfs.tgz")
    return top.path_of("image", "")


def _read_ports(section: Section) -> Ports:
    port = kinds.whole(1, 65535)
    read = {name: section.value(name, port, getattr(Ports(), name)) for name in PORTS}
    for group in (("dhcp", "tftp", "ntp"), ("hello", "image", "web")):  # UDP, TCP
        for i, name in enumerate(group):
            twin = next((other for other in group[:i] if read[other] == read[name]), None)
            if twin:
                late, early = (name, twin) if section.key(name) in section.sheet.places else (twin, name)
                section.sheet.wrong(section.key(late), f"port {read[name]} is also the port of {early}")
    return Ports(**read)


def _read_web(section: Section) -> Web:
    files = {name: section.path_of(name, "") if section.given(name) else None for name in ("certificate", "key")}
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if files[name] and not files[other]:
            section.sheet.wrong(section.key(name), f"needs `{other}:` beside it")
    return Web(
        addresses=section.values("address", kinds.listen) or Web().addresses,
        names=tuple(name.lower() for name in section.values("names", kinds.domain)),
        tls=section.value("tls", kinds.choice("auto", "on", "off"), "auto"),
        certificate=files["certificate"],
        key=files["key"],
    )
