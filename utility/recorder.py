"""A switch written down as text, for the lab to play again: the tables that matter to Piman, without its secrets.

The format is that of lab/replay.py: `.1.3.6.1.2.1.1.5.0 = STRING: "sw1"`, one object a line. What could tell who the
owner is stays out: contact, location, serial numbers, communities; with `anonymise` also names and the last half of
each MAC. Only reads; private tables are walked where drivers.py knows what is in them.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from utility.drivers import OBJECTS, Driver, Oid, oid
from utility.fdb import Agent, Tables
from utility.snmp import SnmpError, Value

MIB_2 = oid("1.3.6.1.2.1")
ENTERPRISES = oid("1.3.6.1.4.1")
BASES: tuple[Oid, ...] = (
    oid("1.3.6.1.2.1.1"),  # system
    oid("1.3.6.1.2.1.2"),  # ifTable
    oid("1.3.6.1.2.1.31.1.1"),  # ifXTable
    oid("1.3.6.1.2.1.17.1"),  # the bridge and its ports
    oid("1.3.6.1.2.1.17.2.15"),  # spanning tree
    oid("1.3.6.1.2.1.17.4"),  # its forwarding table
    oid("1.3.6.1.2.1.17.7.1.1"),
    oid("1.3.6.1.2.1.17.7.1.2.1"),
    oid("1.3.6.1.2.1.17.7.1.2.2"),  # the same by VLAN
    oid("1.3.6.1.2.1.17.7.1.4"),
    oid("1.3.6.1.2.1.47.1.1.1"),  # entities
    oid("1.3.6.1.2.1.47.1.3.2"),  # and which interfaces they are
    oid("1.3.6.1.2.1.105"),  # PoE
    oid("1.0.8802.1.1.2.1.3"),  # LLDP: here
    oid("1.0.8802.1.1.2.1.4.1"),  # and at the other ends
)
CISCO: tuple[Oid, ...] = (  # VLANs, and the old table of ports
    oid("1.3.6.1.4.1.9.9.46.1.3.1.1.2"),
    oid("1.3.6.1.4.1.9.9.46.1.6.1.1.5"),
    oid("1.3.6.1.4.1.9.9.68.1.2.2.1.2"),
    oid("1.3.6.1.4.1.9.5.1.4.1.1.11"),
)
PRIVATE: tuple[Oid, ...] = (  # beside the tables that drivers.py has columns of
    oid("1.3.6.1.4.1.11863.6.56.1.1"),
    oid("1.3.6.1.4.1.11863.6.56.1.3"),
)

# What is left out, and what is told as an empty text.
DROPPED: tuple[Oid, ...] = (
    oid("1.3.6.1.2.1.1.9"),  # sysORTable: long, and of no use
    oid("1.3.6.1.2.1.47.1.1.1.1.11"),  # entPhysicalSerialNum
    oid("1.3.6.1.2.1.47.1.1.1.1.15"),  # entPhysicalAssetID
    oid("1.0.8802.1.1.2.1.3.8"),  # addresses of the switch's management
)
EMPTIED: tuple[Oid, ...] = (oid("1.3.6.1.2.1.1.4"), oid("1.3.6.1.2.1.1.6"))  # sysContact, sysLocation
# With `anonymise` too: sysName, ifAlias, and what LLDP and the entities say of themselves.
NAMES: tuple[Oid, ...] = (
    oid("1.3.6.1.2.1.1.5"),
    oid("1.3.6.1.2.1.31.1.1.1.18"),
    oid("1.3.6.1.2.1.47.1.1.1.1.14"),
    oid("1.0.8802.1.1.2.1.3.3"),
    oid("1.0.8802.1.1.2.1.4.1.1.9"),
    oid("1.0.8802.1.1.2.1.4.1.1.10"),
)
# Columns whose value ends in a MAC, and tables whose index does.
MAC_VALUES: tuple[Oid, ...] = (
    oid("1.3.6.1.2.1.2.2.1.6"),
    oid("1.3.6.1.2.1.17.1.1"),
    oid("1.3.6.1.2.1.17.2.15.1.6"),
    oid("1.3.6.1.2.1.17.2.15.1.8"),
    oid("1.3.6.1.2.1.17.4.3.1.1"),
    oid("1.0.8802.1.1.2.1.3.2"),
    oid("1.0.8802.1.1.2.1.3.7.1.3"),
    oid("1.0.8802.1.1.2.1.4.1.1.5"),
    oid("1.0.8802.1.1.2.1.4.1.1.7"),
)
MAC_INDEXES: tuple[Oid, ...] = (oid("1.3.6.1.2.1.17.4.3.1"), oid("1.3.6.1.2.1.17.7.1.2.2.1"))

_SERIAL = re.compile(r"(?i)\b(s/?n|serial(?: ?(?:number|num|no)\b\.?)?)(\s*[:=#]\s*|\s+)[A-Z0-9-]{5,}")
# The types of pysnmp, and the words of the record for them.
_TYPES = {
    "Integer": "INTEGER", "Integer32": "INTEGER", "Gauge": "GAUGE", "Gauge32": "GAUGE", "Unsigned32": "GAUGE",
    "Counter": "COUNTER", "Counter32": "COUNTER", "Counter64": "COUNTER64", "TimeTicks": "TIMETICKS",
    "IpAddress": "IPADDRESS", "ObjectIdentifier": "OBJECTID",
}  # fmt: skip
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(slots=True)
class Disguise:
    """What a record says in the place of what it must not say."""

    secrets: Collection[str] = ()
    anonymise: bool = False
    _macs: dict[bytes, bytes] = field(default_factory=dict)

    def place(self, at: Oid) -> Oid:
        """The object's number, with another MAC in it."""
        if self.anonymise and _below(at, MAC_INDEXES) and len(at) > 6 and max(at[-6:]) < 256:
            return (*at[:-6], *self._mac(bytes(at[-6:])))
        return at

    def value(self, at: Oid, value: Value) -> Value | None:
        """What to tell of it; None: nothing."""
        if _below(at, DROPPED):
            return None
        if not isinstance(value, bytes):
            return value
        if _below(at, EMPTIED) or (self.anonymise and _below(at, NAMES)):
            return b""
        if self.anonymise and _below(at, MAC_VALUES) and len(value) >= 6 and not _is_text(value):
            return value[:-6] + self._mac(value[-6:])
        for secret in self.secrets:
            value = value.replace(secret.encode(), b"***")
        return _SERIAL.sub(r"\1\2***", value.decode("latin-1")).encode("latin-1")

    def _mac(self, mac: bytes) -> bytes:
        """The same maker's, another board's; the same each time."""
        while mac not in self._macs and any(mac):
            other = mac[:3] + secrets.token_bytes(3)
            if other not in self._macs.values():
                self._macs[mac] = other
        return self._macs.get(mac, mac)


def record(
    agent: Agent,
    driver: Driver,
    object_id: Oid | None,
    disguise: Disguise,
    *,
    more: Iterable[Oid] = (),
    tell: Callable[[str], None] = lambda _text: None,
) -> str:
    """The text of a record; SnmpError. `more` are further parts of the tree to walk, on the user's own head."""
    lines: dict[Oid, str] = {}
    for base in (*bases_for(driver, object_id), *more):
        before = len(lines)
        for at, value, kind in agent.rows(base):
            _keep(lines, disguise, at, value, kind)
        tell(f"{dotted(base)}: {len(lines) - before} objects")
    if driver.fdb == "vlan":
        for vlan in Tables(agent, driver).vlans():
            before = len(lines)
            with contextlib.suppress(SnmpError), agent.in_vlan(vlan, sure=True) as one:  # a VLAN that nobody may see
                for base in (oid("1.3.6.1.2.1.17.1.4"), oid("1.3.6.1.2.1.17.4.3")):
                    for at, value, kind in one.rows(base):
                        _keep(lines, disguise, at, value, kind)
            tell(f"VLAN {vlan}: {len(lines) - before} objects")
    head = (
        f"# A switch recorded by Piman; driver {driver.name}. Play it with: piman lab up --switch FILE",
        "# Contact, location, serial numbers and communities are not in it"
        + ("; names are empty and MACs are others." if disguise.anonymise else ". Names and MACs are the real ones."),
    )
    return "\n".join([*head, *(lines[at] for at in sorted(lines)), ""])


def bases_for(driver: Driver, object_id: Oid | None) -> list[Oid]:
    """The parts of the tree to walk: the standard ones, and the private tables that the maker's switches may have."""
    maker = (object_id or ())[:7]
    named = [driver.admin, *(watts.column for watts in driver.watts), *(each.object for each in driver.cautions)]
    columns = [column for column in (*OBJECTS.values(), *named) if column[:7] == maker and column[:6] == ENTERPRISES]
    entries = {column[:-1] for column in columns} | {each for each in (*CISCO, *PRIVATE) if each[:7] == maker}
    found: list[Oid] = list(BASES)
    for entry in sorted(entries):
        if not any(entry[: len(base)] == base for base in found):
            found.append(entry)
    return found


def _keep(lines: dict[Oid, str], disguise: Disguise, at: Oid, value: Value, kind: str) -> None:
    told = disguise.value(at, value)
    if told is not None:
        lines.setdefault(disguise.place(at), f"{dotted(disguise.place(at))} = {written(told, kind)}")


def written(value: Value, kind: str) -> str:
    """`STRING: "sw1"`."""
    if isinstance(value, int):
        return f"{_TYPES.get(kind, 'INTEGER')}: {value}"
    if isinstance(value, tuple):
        return f"OBJECTID: {dotted(value)}"
    data = value or b""
    if kind == "IpAddress" and len(data) == 4:
        return f"IPADDRESS: {'.'.join(map(str, data))}"
    if not _is_text(data):
        return f"HEX: {data.hex(' ')}"
    return 'STRING: "' + "".join(_ESCAPES.get(each, each) for each in data.decode()) + '"'


def dotted(at: Oid) -> str:
    return "." + ".".join(map(str, at))


def _is_text(data: bytes) -> bool:
    """Whether a human can read it, and the text says every byte of it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return all(each.isprintable() or each in _ESCAPES for each in text)


def _below(at: Oid, bases: Iterable[Oid]) -> bool:
    return any(at[: len(base)] == base for base in bases)
