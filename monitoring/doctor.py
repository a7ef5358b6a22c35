"""What may be wrong before a Pi is even switched on: facts about machine, files and switches in, findings out.

Pure: who gathers the facts is monitoring/inspection.py, who prints the findings is the command. Each finding that is
no praise says what to do. What went wrong in a boot that took place is diagnosis.py's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from utility.config import HOW, Config, Problem, Switch
from utility.drivers import Detection
from utility.service import Severity
from utility.switches import Capabilities, Port

SCARCE, TOO_SCARCE = 500_000_000, 20_000_000  # bytes free where the state is kept
GUESSED = frozenset({"private", "public"})  # what switches come with

UNKNOWN = Capabilities("")
_FAULTS = frozenset({Detection.FAULT, Detection.OTHER_FAULT})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `area` in a word or two, what was found, and what to do, empty where all is well."""

    area: str
    severity: Severity
    text: str
    advice: str = ""


def well(area: str, text: str) -> Check:
    return Check(area, Severity.INFO, text)


def doubtful(area: str, text: str, advice: str) -> Check:
    return Check(area, Severity.WARNING, text, advice)


def wrong(area: str, text: str, advice: str) -> Check:
    return Check(area, Severity.ERROR, text, advice)


def bad_files(problems: Iterable[Problem]) -> list[Check]:
    """The report of files that cannot be used; each problem says itself what was expected."""
    return [wrong(problem.file.name, str(problem), "correct it: README, `Configuration`") for problem in problems]


# The rack as it is written down


def check_files(config: Config, addresses: Mapping[IPv4Address, str]) -> list[Check]:
    """Whether config.yaml and hosts.csv speak of the same Pis; `addresses` are those of hosts.csv, with the names."""
    checks = [well("config.yaml", _count(len(config.switches), "switch", "switches"))]
    ports = {
        address: f"port {port} of {label(switch)}"
        for switch in config.switches
        for port, address in enumerate(switch.pi_addresses, 1)
        if address
    }
    checks.append(
        well("hosts.csv", f"{_count(len(addresses), 'Pi')}, {len(addresses.keys() & ports.keys())} with a port")
    )
    nameless = [f"{address} ({place})" for address, place in ports.items() if address not in addresses]
    if nameless:
        advice = "add a line `MAC;address;name;0` for it, or power it on and `piman adopt` it with --address"
        checks.append(doubtful("hosts.csv", f"no Pi has {_some(nameless)}", advice))
    portless = [name for address, name in addresses.items() if address not in ports]
    if portless and config.switches:
        text = f"config.yaml gives no port to {_some(portless)}"
        checks.append(doubtful("config.yaml", text, "write its address under the switch's pi_addresses"))
    return checks


def label(switch: Switch) -> str:
    """What a human calls the switch."""
    return f"switch {switch.name or switch.address}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _some(names: Sequence[str], most: int = 4) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


# The network


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface of this machine. `networks`: those that are reached through it without a router."""

    name: str
    is_up: bool
    has_carrier: bool
    networks: tuple[IPv4Network, ...] = ()


def check_network(config: Config, links: Sequence[Link], is_ours: bool) -> list[Check]:
    """The interface to the rack. `is_ours`: this machine has the server_address."""
    by_name = {link.name: link for link in links}
    link = by_name.get(config.interface)
    mine = f"{config.server_address}/{config.network.prefixlen}"
    set_it = f"`ip addr add {mine} dev {config.interface}`, and in the network's configuration, so that it stays"
    if link is None:
        others = ", ".join(name for name in by_name if name != "lo") or "none"
        advice = "set `interface:` to the one on the network of the Pis"
        return [wrong("interface", f"there is no interface {config.interface}; there are: {others}", advice)]
    if not link.is_up:
        return [wrong("interface", f"{link.name} is down", f"`ip link set {link.name} up`")]
    elsewhere = [each.name for each in links if each is not link and config.network in each.networks]
    checks = []
    if not is_ours:
        checks.append(wrong("interface", f"{config.server_address} is no address of this machine", set_it))
    elif config.network not in link.networks and elsewhere:
        advice = f"set `interface: {elsewhere[0]}`, or move the address"
        checks.append(wrong("interface", f"{config.network} is on {_some(elsewhere)}, not on {link.name}", advice))
    elif config.network not in link.networks:
        found = ", ".join(map(str, link.networks)) or "no network"
        advice = f"make address and mask the same on both sides: subnet_mask in config.yaml, or {set_it}"
        checks.append(wrong("interface", f"{link.name} is on {found}, and config.yaml says {config.network}", advice))
    if not link.has_carrier:
        checks.append(
            wrong("interface", f"{link.name} has no link", "plug the cable in, and see that the switch is on")
        )
    return checks or [well("interface", f"{link.name} is up, with {mine}")]


@dataclass(frozen=True, slots=True)
class PortTry:
    """What came of trying to take a port: `error` is empty where it is free; `holder` says who has it, if known."""

    service: str
    protocol: str
    number: int
    error: str = ""
    denied: bool = False  # we are not allowed to try
    holder: str = ""


def check_ports(tries: Sequence[PortTry], server: str) -> list[Check]:
    """The ports; `server` is how the running server is called among the holders, empty where none runs."""
    checks = []
    if any(each.denied for each in tries):
        text = "this user may not take the ports below 1024, so they could not be tried"
        checks.append(
            doubtful("ports", text, "run `sudo piman doctor`; the server itself runs under piman.service or sudo")
        )
    ours = 0
    for each in tries:
        where = f"{each.protocol} port {each.number} ({each.service})"
        if not each.error or each.denied:
            continue
        if server and each.holder in (server, ""):
            ours += 1
        elif each.holder:
            advice = f"stop it, or set `ports: {{{each.service}: ...}}`, or leave {each.service} out of `services:`"
            checks.append(wrong("ports", f"{where} is held by {each.holder}", advice))
        else:
            advice = "`sudo ss -ulpn` and `sudo ss -tlpn` show who has it"
            checks.append(wrong("ports", f"{where} cannot be had: {each.error}", advice))
    if server:
        checks.append(well("server", f"runs: {server}, with {_count(ours, 'port')}"))
    elif not checks:
        checks.append(well("ports", f"{_count(len(tries), 'port')} can be had; no server runs"))
    return checks


# What the Pis fetch

# What a family of boards cannot boot without, beside what config.txt names. A Pi 5 has its firmware in its EEPROM.
_FAMILIES = {
    "Pi 3": (("bootcode.bin", "start.elf", "fixup.dat"), r"bcm2710-rpi-(3-b|cm3).*\.dtb"),
    "Pi 4": (("start4.elf", "fixup4.dat"), r"bcm2711-rpi-(4-b|400|cm4).*\.dtb"),
    "Pi 5": ((), r"bcm2712.*-rpi-(5-b|500|cm5).*\.dtb"),
}
_MODEL = re.compile(r"(?:Pi[ _](?:Compute[ _]Module[ _])?|CM)([345])")
_FETCH = "`install/boot/fetch_boot_files.sh --output {folder}` fetches it, or says where to copy it from"
_BUILD = "`install/initram/create_initramfs.gz.sh --output {folder}/{name}` builds it"


@dataclass(frozen=True, slots=True)
class BootFolder:
    """boot_dir: the names in it, what config.txt and cmdline.txt say, and what is wrong with single files."""

    path: str
    exists: bool
    names: frozenset[str] = frozenset()
    config_txt: str = ""
    cmdline: str = ""
    problems: tuple[str, ...] = ()


def check_boot(folder: BootFolder, models: Collection[str], is_proxy: bool = False) -> list[Check]:
    """The boot folder; `models` are the boards that were seen, as the board of Pis has them.

    is_proxy: another server gives the addresses, and does not tell the installer where we are.
    """
    if not folder.exists:
        advice = "see README, `On real hardware`, step 6, or set `boot_dir:`"
        return [wrong("boot files", f"{folder.path} is no folder", advice)]
    checks = [
        _missing(folder, name, "is not there") for name in ("config.txt", "cmdline.txt") if name not in folder.names
    ]
    checks += _named_files(folder)
    if is_proxy and "cmdline.txt" in folder.names and "master=" not in folder.cmdline:
        text = "cmdline.txt does not tell the installer where we are, and nobody else does in proxy mode"
        checks.append(doubtful("boot files", text, "put `master={server_address}` into its one line"))
    if len(folder.cmdline.strip().splitlines()) > 1:
        text = "cmdline.txt has more than one line, and only the first one counts"
        checks.append(wrong("boot files", text, "join its lines"))
    advice = "make it smaller or remove it; see tftp/README.md, `Which file is served`"
    checks += [doubtful("boot files", problem, advice) for problem in folder.problems]
    checks += _families(folder, models)
    return checks


def _missing(folder: BootFolder, name: str, text: str, serious: bool = True) -> Check:
    how = _BUILD if name.startswith("initr") else _FETCH
    make = wrong if serious else doubtful
    return make("boot files", f"{name} {text} in {folder.path}", how.format(folder=folder.path, name=name))


def _named_files(folder: BootFolder) -> list[Check]:
    """The kernel and the initramfs: those that config.txt names, or those that are fetched without its word."""
    checks, named = [], []
    for name, section in named_in_config_txt(folder.config_txt):
        named.append(name)
        if name not in folder.names:
            text = f"is named in config.txt{f', for [{section}]' if section else ''}, and is not there"
            checks.append(_missing(folder, name, text, serious=not section))
    if not any(name.startswith("initr") for name in named) and "auto_initramfs=1" not in folder.config_txt:
        text = "config.txt names no initramfs, so a Pi that boots gets no installer"
        checks.append(doubtful("boot files", text, "add the line `initramfs initramfs.gz followkernel`"))
    if not any(name.startswith(("kernel", "boot.img", "u-boot")) for name in {*named, *folder.names}):
        checks.append(_missing(folder, "kernel8.img", "is not there"))
    return checks


def named_in_config_txt(text: str) -> list[tuple[str, str]]:
    """The kernels and initramfs that config.txt names, each with the condition it stands under, "" for all boards."""
    found, section = [], ""
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip().lower()
            section = "" if section == "all" else section
        elif match := re.fullmatch(r"(?:kernel|ramfsfile)\s*=\s*(\S+)|initramfs\s+(\S+).*", line):
            found += [(name, section) for name in (match[1] or match[2]).split(",") if name]
    return found


def _families(folder: BootFolder, models: Collection[str]) -> list[Check]:
    """Which boards can boot; one that cannot is an error where such a board was seen, and worth a word otherwise."""
    seen = {f"Pi {match[1]}" for model in models if (match := _MODEL.search(model))}
    can, checks = [], []
    for family, (files, tree) in _FAMILIES.items():
        missing = [name for name in files if name not in folder.names]
        if not any(re.fullmatch(tree, name) for name in folder.names):
            missing.append("its device tree")
        if not missing:
            can.append(family)
        elif family in seen:
            text = f"a {family} was seen, and cannot boot: {_some(missing)} is not in {folder.path}"
            checks.append(wrong("boot files", text, _FETCH.format(folder=folder.path)))
    if not can:
        text = f"no Raspberry Pi can boot from {folder.path}: firmware or device trees are missing"
        checks.append(wrong("boot files", text, f"`install/boot/fetch_boot_files.sh --output {folder.path}`"))
    else:
        checks.append(well("boot files", f"there for {', '.join(can)}"))
    return checks


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The root file system to install: `problem` says why it cannot be read; `has_init` None: not read to its end."""

    path: str
    size: int = 0
    problem: str = ""
    has_init: bool | None = None


def check_image(image: ImageFile) -> list[Check]:
    advice = "`install/rootfs/create_rootfs.sh` makes one; README, `On real hardware`, step 7"
    if image.problem:
        return [wrong("image", f"{image.path}: {image.problem}", advice)]
    text = f"{image.path}, {image.size / 1e6:.0f} MB"
    if image.has_init is False:
        why = f"{text}: holds no /sbin/init, so a Pi would refuse it after it has erased its card"
        return [wrong("image", why, "pack `/` itself: `tar -C ROOT -czf rootfs.tgz .`")]
    return [well("image", text)]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that the server writes to; `problem` is why it cannot."""

    path: str
    free: int = 0  # bytes
    problem: str = ""


def check_folders(folders: Iterable[Folder]) -> list[Check]:
    checks = []
    for folder in folders:
        free = f"{folder.path}: {folder.free / 1e6:.0f} MB are free"
        if folder.problem:
            advice = "give it to the user that runs the server: `chown -R piman: ...`"
            checks.append(wrong("state", f"{folder.path}: {folder.problem}", advice))
        elif folder.free < TOO_SCARCE:
            checks.append(wrong("state", free, "make room: a full disk loses what is learnt of the Pis"))
        elif folder.free < SCARCE:
            checks.append(doubtful("state", free, "make room, before it is full"))
        else:
            checks.append(well("state", free))
    return checks


# The switches


@dataclass(frozen=True, slots=True)
class SwitchFacts:
    """What a switch answered: what it says it is, its ports, what can be done with them; or why it did not answer."""

    description: str = ""
    ports: tuple[Port, ...] = ()
    capabilities: Capabilities = UNKNOWN
    problem: str = ""


def check_switch(switch: Switch, facts: SwitchFacts) -> list[Check]:
    area = f"switch {switch.index}"
    if facts.problem:
        snmp = "see that its SNMP is on, and who may ask; `snmp:` in config.yaml, communities in .env"
        return [wrong(area, facts.problem, "see what its driver needs" if switch.driver in HOW else snmp)]
    words = " ".join(facts.description.split())[:60] or "says nothing of itself"
    powered = [port for port in facts.ports if port.has_poe]
    if not powered:
        advice = "ports cannot be switched: is it a PoE switch, and may the read community see POWER-ETHERNET-MIB?"
        return [wrong(area, f"{switch.address} shows no PoE ports: {words}", advice)]
    driver = f", asked as {facts.capabilities.driver}" if facts.capabilities.driver else ""
    checks = [well(area, f"{switch.address}, {_count(len(powered), 'PoE port')}{driver}: {words}")]
    used = {port for port, address in enumerate(switch.pi_addresses, 1) if address}
    checks += _places(area, used, facts.ports)
    checks += _port_states(area, powered, used)
    if facts.capabilities.read_only:
        text = f"its ports cannot be switched: {facts.capabilities.read_only}"
        checks.append(doubtful(area, text, "set another `driver:` for it, see README, `Switches`"))
    checks += [doubtful(area, text, "change it on the switch") for text in facts.capabilities.warnings]
    if switch.driver not in HOW and switch.snmp.version != "3" and switch.snmp.write_community in GUESSED:
        text = "anybody on its network can switch its ports: the write community is what it came with"
        advice = "set another on the switch, and PIMAN_SNMP_WRITE_COMMUNITY in .env"
        checks.append(doubtful(area, text, advice))
    return checks


def _places(area: str, used: Collection[int], ports: Iterable[Port]) -> list[Check]:
    """Ports of pi_addresses that the switch has not, or has without PoE."""
    by_number = {port.number: port for port in ports}
    absent = [str(number) for number in sorted(used) if number not in by_number]
    unpowered = [str(number) for number in sorted(used) if number in by_number and not by_number[number].has_poe]
    checks = []
    if absent:
        there = f"{min(by_number)} to {max(by_number)}"
        text = f"pi_addresses names port {_some(absent)}, and its ports are {there}"
        checks.append(wrong(area, text, "count the entries of pi_addresses: the first one is port 1"))
    if unpowered:
        text = f"port {_some(unpowered)} has no PoE: what is there cannot be power-cycled"
        checks.append(doubtful(area, text, "move it, or count the entries of pi_addresses: the first one is port 1"))
    return checks


def _port_states(area: str, ports: Iterable[Port], used: Collection[int]) -> list[Check]:
    """Ports where a Pi belongs that give it no power."""
    mine = [state for state in ports if state.number in used]
    off = [str(state.number) for state in mine if not state.admin_on]
    broken = [str(state.number) for state in mine if state.admin_on and state.detection in _FAULTS]
    checks = []
    if off:
        advice = f"`piman restart {area.removeprefix('switch ')} {','.join(off)}` turns it on"
        checks.append(doubtful(area, f"port {_some(off)} is switched off, and a Pi belongs there", advice))
    if broken:
        advice = "try another cable and PoE hat, and see how much power the switch has left"
        checks.append(doubtful(area, f"port {_some(broken)} reports a fault of its power", advice))
    return checks
