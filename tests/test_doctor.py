"""doctor: each thing that may be wrong, what is said of it, and that a sound rack gets no word of blame."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from monitoring.doctor import (
    BootFolder,
    Check,
    Folder,
    ImageFile,
    Link,
    PortTry,
    SwitchFacts,
    bad_files,
    check_boot,
    check_files,
    check_folders,
    check_image,
    check_network,
    check_ports,
    check_switch,
    named_in_config_txt,
)
from utility.config import Config, Problem, SnmpAccess, Switch
from utility.drivers import Detection
from utility.service import Severity
from utility.switches import Capabilities, Port

INFO, WARNING, ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR
PI1, PI3 = IPv4Address("172.30.4.13"), IPv4Address("172.30.4.15")
RACK = IPv4Network("172.30.4.0/24")
SWITCH = Switch(
    0, IPv4Address("172.30.4.254"), "left", (PI1, None, PI3), SnmpAccess(read_community="r", write_community="w")
)
CONFIG = Config(
    path=Path("config.yaml"),
    private_number=4,
    server_address=IPv4Address("172.30.4.1"),
    network=RACK,
    interface="ens4",
    switches=(SWITCH,),
    boot_dir=Path("boot"),
    image=Path("boot/rootfs.tgz"),
    state_dir=Path("state"),
    log_dir=Path("logs"),
)
LINK = Link("ens4", True, True, (RACK,))
LOOPBACK = Link("lo", True, True)
CONFIG_TXT = "[all]\nkernel=kernel8.img # ours\ninitramfs initramfs.gz followkernel\n[pi5]\n#kernel=other.img\n"
FIRMWARE = {"bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat"}
TREES = {"bcm2710-rpi-3-b.dtb", "bcm2711-rpi-4-b.dtb"}
OURS = {"config.txt", "cmdline.txt", "kernel8.img", "initramfs.gz"}
BOOT = BootFolder("/boot", True, frozenset(FIRMWARE | TREES | OURS), CONFIG_TXT, "quiet master={server_address}\n")


def port(number: int, on: bool = True, detection: Detection = Detection.DELIVERING) -> Port:
    return Port(number, "", index=(1, number), admin_on=on, detection=detection)


FACTS = SwitchFacts("LabSwitch\n 1.0", (port(1), port(2, False), port(3)))


def blame(checks: list[Check]) -> list[tuple[Severity, str]]:
    """What is not well; each such check says what to do, and those that are well say nothing of it."""
    assert checks
    assert all(bool(check.advice) == (check.severity is not INFO) for check in checks)
    return [(check.severity, check.text) for check in checks if check.severity is not INFO]


def the(checks: list[Check], severity: Severity, text: str, advice: str) -> None:
    """The one check that blames, with these words in it."""
    (found,) = (check for check in checks if check.severity is not INFO)
    assert blame(checks) == [(severity, found.text)]
    assert text in found.text
    assert advice in found.advice


def test_a_sound_rack() -> None:
    assert blame(check_files(CONFIG, {PI1: "pi1", PI3: "pi3"})) == []
    assert blame(check_network(CONFIG, [LOOPBACK, LINK], True)) == []
    assert blame(check_ports([PortTry("dhcp", "UDP", 67)], "")) == []
    assert blame(check_boot(BOOT, ())) == []
    assert blame(check_image(ImageFile("rootfs.tgz", 5_000_000, has_init=True))) == []
    assert blame(check_folders([Folder("state", 10**10)])) == []
    assert blame(check_switch(SWITCH, FACTS)) == []
    assert check_switch(SWITCH, FACTS)[0].text == "172.30.4.254, 3 PoE ports: LabSwitch 1.0"


def test_files_with_mistakes() -> None:
    (check,) = bad_files([Problem(Path("/etc/hosts.csv"), 3, "mac", "no MAC")])
    assert (check.area, check.severity, check.text) == ("hosts.csv", ERROR, "/etc/hosts.csv:3: mac: no MAC")


def test_a_port_whose_pi_nobody_knows_and_a_pi_that_has_no_port() -> None:
    checks = check_files(CONFIG, {PI1: "pi1"})
    the(checks, WARNING, "no Pi has 172.30.4.15 (port 3 of switch left)", "piman adopt")
    names = {IPv4Address(f"172.30.4.{100 + each}"): f"extra{each}" for each in range(6)}
    checks = check_files(CONFIG, {PI1: "pi1", PI3: "pi3", **names})
    the(checks, WARNING, "gives no port to extra0, extra1, extra2, extra3 and 2 more", "pi_addresses")
    assert blame(check_files(replace(CONFIG, switches=()), names)) == []
    assert check_files(CONFIG, {PI1: "pi1", PI3: "pi3"})[1].text == "2 Pis, 2 with a port"


@pytest.mark.parametrize(
    ("links", "is_ours", "text", "advice"),
    [
        ([LOOPBACK], True, "there is no interface ens4; there are: none", "interface:"),
        ([LOOPBACK, replace(LINK, name="eth0")], True, "there are: eth0", "interface:"),
        ([replace(LINK, is_up=False)], True, "ens4 is down", "ip link set ens4 up"),
        ([LINK], False, "172.30.4.1 is no address of this machine", "ip addr add 172.30.4.1/24 dev ens4"),
        ([replace(LINK, networks=()), replace(LINK, name="eth0")], True, "is on eth0, not on ens4", "interface: eth0"),
        ([replace(LINK, networks=())], True, "ens4 is on no network", "subnet_mask"),
        ([replace(LINK, networks=(IPv4Network("172.30.0.0/16"),))], True, "ens4 is on 172.30.0.0/16", "subnet_mask"),
        ([replace(LINK, has_carrier=False)], True, "ens4 has no link", "cable"),
    ],
)
def test_the_interface(links: list[Link], is_ours: bool, text: str, advice: str) -> None:
    the(check_network(CONFIG, links, is_ours), ERROR, text, advice)


def test_ports() -> None:
    held = PortTry("tftp", "UDP", 69, "Address already in use", holder="dnsmasq (process 8)")
    the(check_ports([held], ""), ERROR, "UDP port 69 (tftp) is held by dnsmasq (process 8)", "ports: {tftp: ...}")
    the(check_ports([held], "python3 (process 9)"), ERROR, "dnsmasq", "services:")
    the(check_ports([replace(held, holder="")], ""), ERROR, "cannot be had: Address already in use", "ss -ulpn")
    ours = [replace(held, holder="python3 (process 9)"), replace(held, holder="")]
    assert [each.text for each in check_ports(ours, "python3 (process 9)")] == [
        "runs: python3 (process 9), with 2 ports"
    ]
    denied = replace(held, error="Permission denied", denied=True, holder="")
    the(check_ports([denied, denied], ""), WARNING, "may not take the ports", "sudo piman doctor")


@pytest.mark.parametrize(
    ("without", "severity", "text", "advice"),
    [
        ("config.txt", ERROR, "config.txt is not there in /boot", "fetch_boot_files.sh --output /boot"),
        ("kernel8.img", ERROR, "kernel8.img is named in config.txt, and is not there", "fetch_boot_files.sh"),
        (
            "initramfs.gz",
            ERROR,
            "initramfs.gz is named in config.txt",
            "create_initramfs.gz.sh --output /boot/initramfs.gz",
        ),
    ],
)
def test_a_boot_file_that_is_missing(without: str, severity: Severity, text: str, advice: str) -> None:
    the(check_boot(replace(BOOT, names=BOOT.names - {without}), ()), severity, text, advice)


def test_what_config_txt_names() -> None:
    text = CONFIG_TXT.replace("#kernel", "kernel")
    checks = check_boot(replace(BOOT, config_txt=text), ())
    the(checks, WARNING, "other.img is named in config.txt, for [pi5], and is not there", "fetch_boot_files.sh")
    the(check_boot(replace(BOOT, config_txt="kernel=kernel8.img"), ()), WARNING, "names no initramfs", "followkernel")
    assert blame(check_boot(replace(BOOT, config_txt="auto_initramfs=1"), ())) == []
    checks = check_boot(replace(BOOT, config_txt="auto_initramfs=1", names=BOOT.names - {"kernel8.img"}), ())
    the(checks, ERROR, "kernel8.img is not there", "fetch_boot_files.sh")
    text = "[pi4]\nramfsfile=a,b\n[ALL]\ninitramfs c followkernel\ninitramfsx\nkernel =d"
    assert named_in_config_txt(text) == [("a", "pi4"), ("b", "pi4"), ("c", ""), ("d", "")]


def test_cmdline() -> None:
    the(check_boot(replace(BOOT, cmdline="a\nb\n"), ()), ERROR, "cmdline.txt has more than one line", "join")
    far = replace(BOOT, cmdline="quiet")
    assert blame(check_boot(far, ())) == []
    the(check_boot(far, (), is_proxy=True), WARNING, "does not tell the installer where we are", "master=")
    assert blame(check_boot(BOOT, (), is_proxy=True)) == []


def test_what_tftp_says_of_a_file() -> None:
    the(check_boot(replace(BOOT, problems=("config.txt has 5000 bytes",)), ()), WARNING, "5000", "tftp/README.md")


def test_no_boot_folder() -> None:
    the(check_boot(BootFolder("/boot", False), ()), ERROR, "/boot is no folder", "boot_dir")


def test_boards_that_cannot_boot() -> None:
    only4 = replace(BOOT, names=BOOT.names - {"bootcode.bin", "bcm2710-rpi-3-b.dtb"})
    assert blame(check_boot(only4, ["Pi 4", "linux,dummy-virt"])) == []
    assert check_boot(only4, ())[-1].text == "there for Pi 4"
    checks = check_boot(only4, ["Raspberry_Pi_3_Model_B", "Pi 4"])
    the(checks, ERROR, "a Pi 3 was seen, and cannot boot: bootcode.bin, its device tree is not in /boot", "fetch_boot")
    the(check_boot(only4, ["CM5"]), ERROR, "a Pi 5 was seen, and cannot boot: its device tree", "fetch_boot")
    none = replace(BOOT, names=BOOT.names - TREES)
    the(check_boot(none, ()), ERROR, "no Raspberry Pi can boot from /boot", "fetch_boot_files.sh")


def test_the_image() -> None:
    the(check_image(ImageFile("r.tgz", problem="No such file")), ERROR, "r.tgz: No such file", "create_rootfs.sh")
    the(check_image(ImageFile("r.tgz", 1, has_init=False)), ERROR, "holds no /sbin/init", "tar -C")
    assert blame(check_image(ImageFile("r.tgz", 1, has_init=None))) == []


def test_room_for_the_state() -> None:
    the(check_folders([Folder("state", problem="no rights")]), ERROR, "state: no rights", "chown")
    the(check_folders([Folder("state", 10**6)]), ERROR, "1 MB are free", "room")
    the(check_folders([Folder("state", 10**8)]), WARNING, "100 MB are free", "room")


def test_a_switch() -> None:
    the(check_switch(SWITCH, SwitchFacts(problem="no answer")), ERROR, "no answer", "SNMP is on")
    the(check_switch(replace(SWITCH, driver="exec"), SwitchFacts(problem="exit 1")), ERROR, "exit 1", "driver")
    the(check_switch(SWITCH, SwitchFacts("x")), ERROR, "shows no PoE ports: x", "POWER-ETHERNET-MIB")
    the(check_switch(SWITCH, SwitchFacts()), ERROR, "says nothing of itself", "PoE")
    checks = check_switch(SWITCH, replace(FACTS, ports=(port(1), port(2))))
    the(checks, ERROR, "pi_addresses names port 3, and its ports are 1 to 2", "the first one is port 1")
    checks = check_switch(SWITCH, replace(FACTS, ports=(port(1), port(2), Port(3, ""))))
    the(checks, WARNING, "port 3 has no PoE", "move it")
    checks = check_switch(SWITCH, replace(FACTS, ports=(port(1, False), port(2, False), port(3, False))))
    the(checks, WARNING, "port 1, 3 is switched off", "`piman restart 0 1,3`")
    checks = check_switch(SWITCH, replace(FACTS, ports=(port(1, detection=Detection.FAULT), port(3))))
    the(checks, WARNING, "port 1 reports a fault", "cable")


def test_who_may_switch_a_switch() -> None:
    open_to_all = replace(SWITCH, snmp=SnmpAccess())
    the(check_switch(open_to_all, FACTS), WARNING, "anybody on its network", "PIMAN_SNMP_WRITE_COMMUNITY")
    assert blame(check_switch(replace(open_to_all, driver="unifi"), FACTS)) == []
    assert blame(check_switch(replace(SWITCH, snmp=SnmpAccess(version="3")), FACTS)) == []
    checks = check_switch(SWITCH, replace(FACTS, capabilities=Capabilities("juniper", "its SNMP only tells")))
    the(checks, WARNING, "its ports cannot be switched: its SNMP only tells", "driver")
    assert ", asked as juniper: " in checks[0].text
    checks = check_switch(SWITCH, replace(FACTS, capabilities=Capabilities("tplink", warnings=("it does things",))))
    the(checks, WARNING, "it does things", "on the switch")
