"""The PoE switches that people own, as data: a row a family, keyed by sysObjectID. Asks nothing; config.yaml adds rows.

Where a family has POWER-ETHERNET-MIB (RFC 3621) the row says only what is not in it: how the index of a PoE port leads
to an interface, where its watts are, how the forwarding table is read. Written from the vendors' MIBs and what people
report of their switches. A switch of no row is asked by the standard (`STANDARD`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

Oid = tuple[int, ...]


def oid(text: str) -> Oid:
    """`1.3.6.1` -> its numbers; ValueError."""
    return tuple(int(number) for number in text.split("."))


class Detection(IntEnum):
    """pethPsePortDetectionStatus: what a port does with its power."""

    UNKNOWN = 0  # the switch does not say
    DISABLED = 1
    SEARCHING = 2
    DELIVERING = 3
    FAULT = 4
    TEST = 5
    OTHER_FAULT = 6


# Every object of PoE, so that an error can name it.
OBJECTS: dict[str, Oid] = {
    "pethPsePortAdminEnable": oid("1.3.6.1.2.1.105.1.1.1.3"),
    "pethPsePortDetectionStatus": oid("1.3.6.1.2.1.105.1.1.1.6"),
    "pethPsePortPowerClassifications": oid("1.3.6.1.2.1.105.1.1.1.10"),
    "pethMainPsePower": oid("1.3.6.1.2.1.105.1.3.1.1.2"),
    "pethMainPseConsumptionPower": oid("1.3.6.1.2.1.105.1.3.1.1.4"),
    "cpeExtPsePortEnable": oid("1.3.6.1.4.1.9.9.402.1.2.1.1"),
    "cpeExtPsePortPwrAllocated": oid("1.3.6.1.4.1.9.9.402.1.2.1.7"),
    "cpeExtPsePortPwrConsumption": oid("1.3.6.1.4.1.9.9.402.1.2.1.9"),
    "cpeExtPsePortEntPhyIndex": oid("1.3.6.1.4.1.9.9.402.1.2.1.11"),
    "entAliasMappingIdentifier": oid("1.3.6.1.2.1.47.1.3.2.1.2"),
    "rlPethPsePortOutputPower": oid("1.3.6.1.4.1.9.6.1.101.108.1.1.5"),
    "hpicfPoePethPsePortPower": oid("1.3.6.1.4.1.11.2.14.11.1.9.1.1.1.3"),
    "hpicfPoePethPsePortActualPower": oid("1.3.6.1.4.1.11.2.14.11.1.9.1.1.1.8"),
    "arubaWiredPoePethPsePortPowerDrawn": oid("1.3.6.1.4.1.47196.4.1.1.3.8.1.1.1.7"),
    "hh3cPsePortCurrentPower": oid("1.3.6.1.4.1.25506.2.14.1.1.5"),
    "agentPethOutputPower": oid("1.3.6.1.4.1.4526.10.15.1.1.1.2"),
    "ngrmPethOutputPower": oid("1.3.6.1.4.1.4526.11.15.1.1.1.2"),
    "zyPoePsePortPower": oid("1.3.6.1.4.1.890.1.15.3.59.2.1.1.1"),
    "tpPoePortStatus": oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.2"),
    "tpPoePower": oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.7"),
    "tpPoePdClass": oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.10"),
    "tpPoePowerStatus": oid("1.3.6.1.4.1.11863.6.56.1.1.2.1.1.11"),
    "tpPoePowerLimit": oid("1.3.6.1.4.1.11863.6.56.1.1.1.1"),
    "tpPoePowerConsumption": oid("1.3.6.1.4.1.11863.6.56.1.1.1.3"),
    "tpPoeRecoveryGlobalStatus": oid("1.3.6.1.4.1.11863.6.56.1.3.1.1"),
    "mtxrPOEName": oid("1.3.6.1.4.1.14988.1.1.15.1.1.2"),
    "mtxrPOEStatus": oid("1.3.6.1.4.1.14988.1.1.15.1.1.3"),
    "mtxrPOEPower": oid("1.3.6.1.4.1.14988.1.1.15.1.1.6"),
    "hwPoePortEnable": oid("1.3.6.1.4.1.2011.5.25.195.3.1.3"),
    "hwPoePortPowerStatus": oid("1.3.6.1.4.1.2011.5.25.195.3.1.7"),
    "hwPoePortPdClass": oid("1.3.6.1.4.1.2011.5.25.195.3.1.8"),
    "hwPoePortConsumingPower": oid("1.3.6.1.4.1.2011.5.25.195.3.1.10"),
    "swPoEPortCtrlState": oid("1.3.6.1.4.1.171.12.24.3.1.1.2"),
    "swPoEPortInfoClass": oid("1.3.6.1.4.1.171.12.24.4.1.1.2"),
    "swPoEPortInfoPower": oid("1.3.6.1.4.1.171.12.24.4.1.1.3"),
    "swPoEPortInfoLedState": oid("1.3.6.1.4.1.171.12.24.4.1.1.7"),
}

STANDARD_STATES: Mapping[int | str, Detection] = {each.value: each for each in Detection if each}

# How the index of a PoE port (`group.port`, or the port alone) leads to an interface. A row names those to try in
# order; the first that leads each PoE port of the switch to an interface of its own is it.
INDEX_RULES: Mapping[str, str] = {
    "bridge": "the last number is the bridge port",
    "ifindex": "the last number is the ifIndex",
    "name": "2.5 is the interface whose name begins its numbers with 2 and ends in 5, like Gi2/0/5",
    "name0": "the same, where names count from 0: 1.5 is ge-0/0/4",
    "entity": "Cisco's table says the physical entity, and ENTITY-MIB the interface of that",
}
FDB_MODES: Mapping[str, str] = {
    "qbridge": "Q-BRIDGE-MIB, and BRIDGE-MIB where that is empty",
    "bridge": "BRIDGE-MIB alone",
    "vlan": "BRIDGE-MIB, one VLAN at a time: community@VLAN, or the v3 context vlan-VLAN",
}
SOURCES = ("measured", "allocated", "class", "group")  # where a number of milliwatts is from


@dataclass(frozen=True, slots=True)
class Watts:
    """A column with the power of each port. `by_port`: its index is the last number of the PoE port's alone."""

    column: Oid
    milliwatts: int = 1  # in one of the switch's units
    source: str = "measured"
    by_port: bool = False


@dataclass(frozen=True, slots=True)
class Supply:
    """Columns by group, or one object: what the power supplies can give, and what all ports of a group take now."""

    capacity: Oid = OBJECTS["pethMainPsePower"]
    consumption: Oid = OBJECTS["pethMainPseConsumptionPower"]
    capacity_unit: int = 1000  # milliwatts in one of the switch's units
    consumption_unit: int = 1000


@dataclass(frozen=True, slots=True)
class Caution:
    """An object whose `value` means that the switch will do something behind our back."""

    object: Oid
    value: int
    text: str


@dataclass(frozen=True, slots=True)
class Driver:
    """One family of switches.

    object_ids    beginnings of sysObjectID; the longest that fits wins
    admin         the column that switches a port; `on` and `off` are its values, `also_on` further ones that mean on: a
                  port gets back the one that it had
    index         names of INDEX_RULES
    detection     the column that says what the port does; `states` what its values mean, text ones in lower case
    power_class   the column of the class, and what stands there for class 0
    watts         the first of these columns that the switch has
    fdb           one of FDB_MODES
    read_only     why nobody can switch its ports over SNMP; empty: we can
    """

    name: str
    object_ids: tuple[Oid, ...] = ()
    admin: Oid = OBJECTS["pethPsePortAdminEnable"]
    on: int = 1
    off: int = 2
    also_on: tuple[int, ...] = ()
    index: tuple[str, ...] = ("bridge", "ifindex", "name")
    detection: Oid | None = OBJECTS["pethPsePortDetectionStatus"]
    states: Mapping[int | str, Detection] = field(default_factory=lambda: STANDARD_STATES)
    power_class: Oid | None = OBJECTS["pethPsePortPowerClassifications"]
    class_zero: int = 1
    watts: tuple[Watts, ...] = ()
    supply: Supply = Supply()
    fdb: str = "qbridge"
    read_only: str = ""
    cautions: tuple[Caution, ...] = ()

    @property
    def is_standard(self) -> bool:
        """Whether ports are switched by RFC 3621's own object."""
        return self.admin == STANDARD.admin

    def is_on(self, value: int) -> bool | None:
        """What a value of the admin column means; None: nothing that we know."""
        return True if value in (self.on, *self.also_on) else False if value == self.off else None


STANDARD = Driver("standard")

_NO_WRITE = "its SNMP is read-only for PoE"
_TPLINK_STATES: Mapping[int | str, Detection] = {
    0: Detection.SEARCHING,  # no power: nothing there, or switched off
    1: Detection.SEARCHING,  # turning on
    2: Detection.DELIVERING,
    **dict.fromkeys(range(3, 10), Detection.FAULT),  # overload, short, ...
}
_HUAWEI_STATES: Mapping[int | str, Detection] = {
    "powered": Detection.DELIVERING,
    "delivering": Detection.DELIVERING,
    "detecting": Detection.SEARCHING,
    "searching": Detection.SEARCHING,
    "disabled": Detection.DISABLED,
}
_MIKROTIK_STATES: Mapping[int | str, Detection] = {
    1: Detection.DISABLED,
    2: Detection.SEARCHING,
    3: Detection.DELIVERING,
    **dict.fromkeys(range(4, 10), Detection.FAULT),  # overload, short circuit, voltage too low ...
}

DRIVERS: tuple[Driver, ...] = (
    Driver(
        "cisco-ios",
        (oid("1.3.6.1.4.1.9"),),
        admin=OBJECTS["cpeExtPsePortEnable"],
        on=1,  # auto
        off=4,  # disable
        also_on=(2, 3),  # static, limit: RFC 3621's object would turn both into auto
        index=("entity", "name"),
        watts=(
            Watts(OBJECTS["cpeExtPsePortPwrConsumption"]),
            Watts(OBJECTS["cpeExtPsePortPwrAllocated"], source="allocated"),
        ),
        fdb="vlan",
    ),
    # Small Business (SG, CBS, Catalyst 1200/1300) is another house's software than IOS, below the same number.
    Driver(
        "cisco-sb",
        (oid("1.3.6.1.4.1.9.6"),),
        index=("ifindex",),
        watts=(Watts(OBJECTS["rlPethPsePortOutputPower"]),),
    ),
    # ProCurve, AOS-S: ports count on over the stack. ifAdminStatus does not cut the power there, nor do we ask it to.
    Driver(
        "procurve",
        (oid("1.3.6.1.4.1.11.2.3.7"),),
        index=("ifindex", "bridge"),
        watts=(
            Watts(OBJECTS["hpicfPoePethPsePortActualPower"]),
            Watts(OBJECTS["hpicfPoePethPsePortPower"]),
        ),
    ),
    # member.port on those that stack; on a chassis 1 and the ifIndex, which no name ends in.
    Driver(
        "aos-cx",
        (oid("1.3.6.1.4.1.47196.4.1"),),
        index=("name", "ifindex"),
        watts=(Watts(OBJECTS["arubaWiredPoePethPsePortPowerDrawn"]),),
    ),
    # The group is 1 + 3 x member: it says nothing that the bridge port does not.
    Driver(
        "comware",
        (oid("1.3.6.1.4.1.25506"), oid("1.3.6.1.4.1.2011.10")),
        index=("bridge", "ifindex"),
        watts=(Watts(OBJECTS["hh3cPsePortCurrentPower"]),),
    ),
    # What a group takes is in milliwatts there; the RFC says watts.
    Driver(
        "netgear",
        (oid("1.3.6.1.4.1.4526"),),
        index=("name", "bridge"),
        watts=(Watts(OBJECTS["agentPethOutputPower"]), Watts(OBJECTS["ngrmPethOutputPower"])),
        supply=Supply(consumption_unit=1),
    ),
    Driver(
        "tplink",
        (oid("1.3.6.1.4.1.11863"),),
        admin=OBJECTS["tpPoePortStatus"],
        on=1,
        off=0,
        index=("bridge", "name"),
        detection=OBJECTS["tpPoePowerStatus"],
        states=_TPLINK_STATES,
        power_class=OBJECTS["tpPoePdClass"],
        class_zero=0,
        watts=(Watts(OBJECTS["tpPoePower"], 100),),
        supply=Supply(OBJECTS["tpPoePowerLimit"], OBJECTS["tpPoePowerConsumption"], 100, 100),
        cautions=(
            Caution(
                (*OBJECTS["tpPoeRecoveryGlobalStatus"], 0),
                1,
                "PoE auto recovery is on: the switch restarts a Pi that does not answer its ping, also in the middle of"
                " an install; turn it off",
            ),
        ),
    ),
    Driver(
        "mikrotik",
        (oid("1.3.6.1.4.1.14988"),),
        admin=OBJECTS["mtxrPOEStatus"],
        on=3,
        off=1,
        also_on=(2, 4, 5, 6, 7, 8, 9),
        index=("ifindex",),
        detection=OBJECTS["mtxrPOEStatus"],
        states=_MIKROTIK_STATES,
        power_class=None,
        watts=(Watts(OBJECTS["mtxrPOEPower"], 100),),
        fdb="bridge",
        read_only=f"{_NO_WRITE}: set `driver: routeros` for this switch",
    ),
    # GS1915, XMG1915 and larger. GS1900 shows no PoE over SNMP at all.
    Driver(
        "zyxel",
        (oid("1.3.6.1.4.1.890.1.15"),),
        watts=(Watts(OBJECTS["zyPoePsePortPower"], by_port=True),),
    ),
    Driver(
        "juniper",
        (oid("1.3.6.1.4.1.2636"),),
        index=("name0",),
        read_only=f"{_NO_WRITE} and Junos wants NETCONF: set `driver: exec` for this switch",
    ),
    Driver(
        "huawei",
        (oid("1.3.6.1.4.1.2011"),),
        admin=OBJECTS["hwPoePortEnable"],
        index=("ifindex",),
        detection=OBJECTS["hwPoePortPowerStatus"],
        states=_HUAWEI_STATES,
        power_class=OBJECTS["hwPoePortPdClass"],
        class_zero=0,
        watts=(Watts(OBJECTS["hwPoePortConsumingPower"]),),
    ),
    Driver(
        "dlink",
        (oid("1.3.6.1.4.1.171"),),
        admin=OBJECTS["swPoEPortCtrlState"],
        on=2,
        off=3,
        also_on=(1,),
        index=("bridge", "name"),
        detection=OBJECTS["swPoEPortInfoLedState"],
        states={1: Detection.DELIVERING, 2: Detection.SEARCHING},
        power_class=OBJECTS["swPoEPortInfoClass"],
        class_zero=0,
        watts=(Watts(OBJECTS["swPoEPortInfoPower"]),),
    ),
    Driver(
        "unifi-switch",
        (oid("1.3.6.1.4.1.41112"), oid("1.3.6.1.4.1.4413")),
        read_only="a UniFi switch is switched by its controller: set `driver: unifi` for this switch",
    ),
)


def driver_for(object_id: Oid | None, drivers: Iterable[Driver] = DRIVERS) -> Driver:
    """The driver whose number is the longest beginning of a switch's sysObjectID; STANDARD where there is none.

    Of two that fit as well the first wins, so a user's rows go before ours.
    """
    best, length = STANDARD, 0
    for driver in drivers:
        for prefix in driver.object_ids:
            if object_id and object_id[: len(prefix)] == prefix and len(prefix) > length:
                best, length = driver, len(prefix)
    return best
