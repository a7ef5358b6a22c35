"""The forms of config.yaml: each key with its words, its kind of input and its default. Data only.

What is good is for utility/config to say; a test holds the keys and the defaults here equal to those there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from utility.config import SERVICES
from utility.drivers import FDB_MODES, SOURCES
from utility.rules import BUILT_IN, SHORT_NAMES
from web.views import Json


@dataclass(frozen=True, slots=True)
class Field:
    """One input.

    kind      "text", "number", "list" (of texts), "choice", "choices" (some of them)
    default   as it would be written; empty: none
    secret    it is never shown, only whether there is one
    section   a heading of the page; in an entry of a list a part that is folded away, "" for what is always seen
    of        for which entries it is, by their `type` or `driver`; empty: for all
    """

    key: str
    section: str
    label: str
    help: str = ""
    kind: str = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    required: bool = False
    secret: bool = False
    unit: str = ""
    live: bool = True  # in force without a restart
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list whose entries have keys.

    one    what an entry is called
    named  they are no list but keys of a section, each with a name that somebody gave
    short  which key an entry in a single word has that word for; "": it has keys, or is shown as one secret
    """

    key: str
    title: str
    one: str
    help: str
    fields: tuple[Field, ...]
    short: str = ""
    named: bool = False


_YES_NO = ("true", "false")
FIELDS: tuple[Field, ...] = (
    Field("private_number", "Network", "VLAN", "replaces {private_number} in a community", "number", required=True),
    Field("server_address", "Network", "This manager's address", "on the network of the Pis", required=True),
    Field("subnet_mask", "Network", "Subnet mask", "like 255.255.255.0", required=True),
    Field("interface", "Network", "Interface", "of this machine, on the network of the Pis", required=True),
    Field("router", "Network", "Router", "told to the Pis; none by default"),
    Field("dns", "Network", "Name servers", "told to the Pis", "list"),
    Field("domain", "Network", "Domain", "like rack.example.org"),
    Field("site", "Network", "Site", "tells this rack from others, in alerts and in Prometheus"),
    Field("ntp_servers", "Network", "Time servers", "this manager where none are given", "list"),
    Field("switch_count", "Network", "Number of switches", "a check; may be left out", "number"),
    Field("lease_time", "DHCP", "Lease time", "", "number", "600", unit="s"),
    Field("dhcp_mode", "DHCP", "Mode", "proxy: beside a DHCP server that is there already", "choice", "server",
          ("server", "proxy")),
    Field("reply_delay", "DHCP", "Delay of an offer", "auto: as each kind of board needs it", "text", "auto", unit="s"),
    Field("unknown_pis", "DHCP", "Unknown Pis", "what a Pi gets that is not in hosts.csv", "choice", "ignore",
          ("ignore", "approve", "pool")),
    Field("pool", "DHCP", "Pool", "addresses for unknown Pis, like 172.30.4.100-172.30.4.150"),
    Field("serve_firmware_updates", "Files", "Firmware updates", "true, false, or a list of hostnames and MACs", "list",
          "false"),
    Field("boot_dir", "Files", "Boot folder", "paths start at config.yaml's folder", "text", "install/boot"),
    Field("image", "Files", "Image", "a bare name is in the boot folder", "text", "rootfs.tgz"),
    Field("state_dir", "Files", "State folder", "", "text", "state", live=False),
    Field("log_dir", "Files", "Log folder", "", "text", "logs", live=False),
    Field("services", "Services", "Services", "which of them run", "choices", ", ".join(SERVICES), SERVICES),
    Field("ports.dhcp", "Services", "DHCP's port", "", "number", "67"),
    Field("ports.tftp", "Services", "TFTP's port", "", "number", "69"),
    Field("ports.hello", "Services", "Installer's port", "", "number", "3333"),
    Field("ports.image", "Services", "Image's port", "", "number", "4444"),
    Field("ports.ntp", "Services", "NTP's port", "", "number", "123"),
    Field("ports.web", "Services", "Web page's port", "", "number", "5000"),
    Field("local_stratum", "Time", "Stratum without a source", "what our time is worth then; none: Pis do not take it",
          "text", "10"),
    Field("ntp_rate_limit", "Time", "Rate limit", "seconds between two answers to one client, or none", "text", "none"),
    Field("snmp.version", "Switches", "SNMP version", "", "choice", "2c", ("1", "2c", "3")),
    Field("snmp.port", "Switches", "SNMP port", "", "number", "161"),
    Field("snmp.timeout", "Switches", "Timeout of one try", "", "number", "3", unit="s"),
    Field("snmp.retries", "Switches", "Tries after the first", "", "number", "2"),
    Field("snmp.bulk", "Switches", "GETBULK", "false: the switch falls over it", "choice", "true", ("true", "false")),
    Field("snmp.read_community", "Switches", "Read community", "rather in .env", secret=True),
    Field("snmp.write_community", "Switches", "Write community", "rather in .env", secret=True),
    Field("snmp.user", "Switches", "User", "of SNMP 3"),
    Field("snmp.auth_protocol", "Switches", "Signing", "of SNMP 3", "text", "SHA"),
    Field("snmp.priv_protocol", "Switches", "Encryption", "of SNMP 3", "text", "AES"),
    Field("monitoring.interval", "Monitoring", "Poll each Pi every", "", "number", "10", unit="s"),
    Field("monitoring.timeout", "Monitoring", "Wait for its answer", "", "number", "3", unit="s"),
    Field("monitoring.port", "Monitoring", "Port of the agent on the Pis", "", "number", "3000"),
    Field("web.address", "Web page", "Addresses it is on", "127.0.0.1: this machine alone; 0.0.0.0: all", "list",
          "127.0.0.1"),
    Field("web.names", "Web page", "Other names it is reached by", "", "list"),
    Field("web.tls", "Web page", "TLS", "auto: on, unless it is on this machine alone", "choice", "auto",
          ("auto", "on", "off")),
    Field("web.certificate", "Web page", "Certificate", "a PEM file; one is made where none is given"),
    Field("web.key", "Web page", "Key of the certificate", "a PEM file"),
)  # fmt: skip
_OWN = "SNMP of this switch alone"
SWITCH_FIELDS: tuple[Field, ...] = (
    Field("address", "", "Address", required=True),
    Field("name", "", "Name"),
    Field("off_time", "", "Time without power", "of a power cycle", "number", "5", unit="s"),
    Field("driver", "", "Driver", "auto, or the name of a family or of a row of `drivers:`; exec, unifi, routeros",
          default="auto"),
    Field("protected_ports", "", "Protected ports", "never turned off: uplinks, this manager", "list"),
    Field("power_budget", "", "Power budget", "where the switch does not tell its own", "number", unit="W"),
    Field("exec.ports", "", "Ports", "how many there are", "number", of=("exec",)),
    Field("exec.on", "", "Command: on", "like ssh poe@{address} poe {port} on", of=("exec",)),
    Field("exec.off", "", "Command: off", of=("exec",)),
    Field("exec.status", "", "Command: status", "says on or off", of=("exec",)),
    Field("exec.timeout", "", "Patience with a command", "", "number", "30", unit="s", of=("exec",)),
    Field("unifi.server", "", "Controller", "like https://172.30.4.2:8443", of=("unifi",)),
    Field("unifi.user", "", "Its user", "the password is PIMAN_UNIFI_PASSWORD in .env", default="piman", of=("unifi",)),
    Field("unifi.site", "", "Site", default="default", of=("unifi",)),
    Field("unifi.fingerprint", "", "Fingerprint", "of its certificate", of=("unifi",)),
    Field("routeros.server", "", "Its web address", "https at its address, by default", of=("routeros",)),
    Field("routeros.user", "", "Its user", "the password is PIMAN_ROUTEROS_PASSWORD in .env", default="piman",
          of=("routeros",)),
    Field("routeros.fingerprint", "", "Fingerprint", "of its certificate", of=("routeros",)),
    Field("snmp.version", _OWN, "SNMP version", "", "choice", "", ("1", "2c", "3")),
    Field("snmp.port", _OWN, "SNMP port", "", "number"),
    Field("snmp.timeout", _OWN, "Timeout of one try", "", "number", unit="s"),
    Field("snmp.retries", _OWN, "Tries after the first", "", "number"),
    Field("snmp.bulk", _OWN, "GETBULK", "false: the switch falls over it", "choice", "", _YES_NO),
    Field("snmp.read_community", _OWN, "Read community", "rather in .env", secret=True),
    Field("snmp.write_community", _OWN, "Write community", "rather in .env", secret=True),
    Field("snmp.user", _OWN, "User", "of SNMP 3"),
    Field("snmp.auth_protocol", _OWN, "Signing", "of SNMP 3"),
    Field("snmp.priv_protocol", _OWN, "Encryption", "of SNMP 3"),
)  # fmt: skip
_FACE, _POWER = "What it says of a port", "What it says of power"
DRIVERS_OF_YOUR_OWN = ListOf(
    "drivers", "Drivers of your own", "driver",
    "For a switch that no driver knows; what is left out is as in RFC 3621, or as the driver it is like.",
    (
        Field("object_id", "", "sysObjectID", "its beginning, by which the switch is found", "list"),
        Field("like", "", "Like", "any driver of the table in README", default="standard"),
        Field("admin", "", "Column that switches a port"),
        Field("on", "", "Value: on", "", "number"),
        Field("off", "", "Value: off", "", "number"),
        Field("also_on", "", "Values that mean on as well", "", "list"),
        Field("index", "", "Last number of its index", "bridge, ifindex, name, name0, entity", "list"),
        Field("fdb", "", "Where it has its MACs", "", "choice", "", tuple(FDB_MODES)),
        Field("read_only", "", "Cannot be switched", "because of what"),
        Field("detection", _FACE, "Column: what a port does"),
        Field("states.delivering", _FACE, "Values: delivering", "", "list"),
        Field("states.searching", _FACE, "Values: searching", "", "list"),
        Field("states.disabled", _FACE, "Values: disabled", "", "list"),
        Field("states.fault", _FACE, "Values: fault", "", "list"),
        Field("power_class", _POWER, "Column: class"),
        Field("class_zero", _POWER, "Class 0 is", "0 or 1", "number"),
        Field("watts", _POWER, "Column: power"),
        Field("watts_unit", _POWER, "Its unit", "", "number", unit="mW"),
        Field("watts_source", _POWER, "What the number is", "", "choice", "", SOURCES),
        Field("watts_by_port", _POWER, "Indexed by the port alone", "", "choice", "", _YES_NO),
        Field("capacity", _POWER, "Column: what the supply has"),
        Field("capacity_unit", _POWER, "Its unit", "", "number", unit="mW"),
        Field("consumption", _POWER, "Column: what it gives"),
        Field("consumption_unit", _POWER, "Its unit", "", "number", unit="mW"),
    ),
    named=True,
)  # fmt: skip
LISTS: tuple[ListOf, ...] = (
    ListOf(
        "subnets", "Networks behind relays", "network", "Pis that are reached through a router with a DHCP relay.",
        (
            Field("network", "", "Network", "like 10.2.0.0/24", required=True),
            Field("subnet_mask", "", "Subnet mask", "where the network has no /24"),
            Field("router", "", "Router", "of that network, by which its Pis reach this manager", required=True),
            Field("pool", "", "Pool", "for unknown Pis, like 10.2.0.100-10.2.0.150"),
            Field("lease_time", "", "Lease time", "as in the manager's network", "number", unit="s"),
            Field("dns", "", "Name servers", "", "list"),
            Field("domain", "", "Domain"),
            Field("ntp_servers", "", "Time servers", "", "list"),
        ),
    ),
    ListOf(
        "monitoring.rules", "Alerts: rules of your own", "rule",
        "One with the name of a rule that is built in changes that: how bad it is, or turns it off.",
        (
            Field("when", "", "When", "like temperature > 70 for 2m clear < 65"),
            Field("name", "", "Name", "as what it measures, by default"),
            Field("severity", "", "How bad", "", "choice", "", ("info", "warning", "critical")),
            Field("enabled", "", "In force", "false: not at all", "choice", "true", _YES_NO),
            Field("only", "", "Only for", "patterns of names, like pi1*", "list"),
        ),
        short="when",
    ),
    ListOf(
        "monitoring.channels", "Alerts: who is told", "channel", "Try them with: piman alerts test",
        (
            Field("type", "", "How", "", "choice", "", ("slack", "email", "webhook", "script"), required=True),
            Field("name", "", "Name"),
            Field("url", "", "Address", "of Slack rather as PIMAN_SLACK_WEBHOOK in .env", secret=True,
                  of=("slack", "webhook")),
            Field("to", "", "To", "mail addresses", "list", of=("email",)),
            Field("from", "", "From", "", "text", of=("email",)),
            Field("server", "", "Mail server", "", "text", "localhost", of=("email",)),
            Field("security", "", "Encryption", "", "choice", "", ("none", "starttls", "tls"), of=("email",)),
            Field("user", "", "User", "the password is PIMAN_SMTP_PASSWORD in .env", of=("email",)),
            Field("path", "", "Program", "it gets the alert as JSON", of=("script",)),
            Field("severity", "", "From how bad on", "", "choice", "warning", ("info", "warning", "critical")),
            Field("resolved", "", "Also what is over", "", "choice", "true", _YES_NO),
        ),
    ),
)  # fmt: skip
HEALING: tuple[Field, ...] = (
    Field("enabled", "Self-healing", "Power-cycle what is dead", "dry-run: only tell", "choice", "false",
          ("true", "false", "dry-run")),
    Field("after", "Self-healing", "Without a sign of life for", "like 5m", default="5m"),
    Field("cooldown", "Self-healing", "Pause between two tries", "", default="15m"),
    Field("per_pi", "Self-healing", "Tries a day, for a Pi", "", "number", "3"),
    Field("per_rack", "Self-healing", "Tries a day, in all", "", "number", "10"),
    Field("reinstall", "Self-healing", "Reinstall as second try", "it erases the card", "choice", "false", _YES_NO),
    Field("boot_after", "Self-healing", "Boot without a step for", "", default="5m"),
    Field("boot_tries", "Self-healing", "Tries of a boot", "", "number", "3"),
)  # fmt: skip


def threshold_fields(values: Mapping[str, str]) -> list[Field]:
    """The numbers of the rules that are built in; under the short name where config.yaml uses that."""
    found = []
    short = {name: key for key, name in SHORT_NAMES.items()}
    for rule in BUILT_IN:
        if rule.about.unit == "flag":
            continue
        old = f"monitoring.thresholds.{short.get(rule.name, rule.name)}"
        key = old if old in values else f"monitoring.thresholds.{rule.name}"
        label = rule.name.replace("_", " ")
        number = f"{rule.raised.number:g}"
        found.append(Field(key, "Alerts: built in", label, rule.expression, "number", number, unit=rule.about.unit))
    return found


def field_views(values: Mapping[str, str]) -> list[Json]:
    """Every field with the value that config.yaml gives it, if any."""
    is_short = "monitoring.healing" in values  # a single word
    healing = [
        _view(
            each,
            "monitoring.healing" if is_short and each.key == "enabled" else f"monitoring.healing.{each.key}",
            values,
        )
        for each in HEALING
    ]
    return [*(_view(each, each.key, values) for each in (*FIELDS, *threshold_fields(values))), *healing]


def list_views(values: Mapping[str, str]) -> list[Json]:
    """The lists, each with its entries, and with the fields of one that could come."""
    return [
        {
            "key": each.key,
            "title": each.title,
            "one": each.one,
            "help": each.help,
            "named": each.named,
            "entries": [_entry(each, key, values) for key in _keys(each, values)],
            "fields": [_view(field, field.key, {}) for field in each.fields],
        }
        for each in (*LISTS, DRIVERS_OF_YOUR_OWN)
    ]


def _keys(about: ListOf, values: Mapping[str, str]) -> list[str]:
    """The entries of a list, by their keys."""
    if not about.named:
        return [f"{about.key}[{number}]" for number in range(_count(values, about.key))]
    names = (re.match(rf"{about.key}\.([^.\[]+)", name) for name in values)
    return list(dict.fromkeys(each[0] for each in names if each))


def switch_fields() -> list[Json]:
    """The fields of a switch that could come."""
    return [_view(each, each.key, {}) for each in SWITCH_FIELDS]


def _entry(about: ListOf, key: str, values: Mapping[str, str]) -> list[Json]:
    """One entry; written as a single word it has the first key alone."""
    if key in values and not about.short:
        is_open = "://" not in values[key]  # the address of a hook lets in whoever has it
        return [_view(Field(key, "", "In one word", "an address, a path, or slack", secret=not is_open), key, values)]
    return [
        _view(field, key if key in values and field.key == about.short else f"{key}.{field.key}", values)
        for field in about.fields
    ]


def _count(values: Mapping[str, str], key: str) -> int:
    found = (re.match(rf"{re.escape(key)}\[([0-9]+)\]", name) for name in values)
    return 1 + max((int(each[1]) for each in found if each), default=-1)


def switch_views(values: Mapping[str, str], count: int) -> list[Json]:
    """The switches with their fields and which Pi is on which port."""
    found: list[Json] = []
    for index in range(count):
        prefix = f"switches[{index}]."
        keys = {key.removeprefix(prefix) for key in values if key.startswith(prefix)}
        address = next((key for key in sorted(keys) if key.endswith("address")), "address")
        fields = [
            _view(each, prefix + (address if each.key == "address" else each.key), values) for each in SWITCH_FIELDS
        ]
        found.append({"index": index, "fields": fields, "pi_addresses": _items(values, f"{prefix}pi_addresses")})
    return found


def _items(values: Mapping[str, str], key: str) -> list[str | None]:
    if key in values:  # one value, or several with commas between
        return [part.strip() or None for part in values[key].split(",")]
    numbers = [int(name[len(key) + 1 : -1]) for name in values if name.startswith(f"{key}[") and name.endswith("]")]
    return [values.get(f"{key}[{number}]") for number in range(max(numbers, default=-1) + 1)]


def _view(field: Field, key: str, values: Mapping[str, str]) -> Json:
    value: object = values.get(key)
    if field.kind in ("list", "choices"):
        value = [each for each in _items(values, key) if each] or None
    return {
        "key": key,
        "section": field.section,
        "label": field.label,
        "help": field.help,
        "kind": field.kind,
        "default": field.default,
        "choices": list(field.choices),
        "required": field.required,
        "unit": field.unit,
        "live": field.live,
        "of": list(field.of),
        "secret": field.secret,
        "set": key in values or value is not None,
        "value": None if field.secret else value,
    }
