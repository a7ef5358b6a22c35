"""The forms of config.yaml: each plain key with its words, its kind of input and its default. Data only.

What is good is for utility/config to say; a test holds the keys and the defaults here equal to those there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from utility.config import SERVICES
from web.views import Json


@dataclass(frozen=True, slots=True)
class Field:
    """One input.

    kind      "text", "number", "list" (of texts), "choice", "choices" (some of them)
    default   as it would be written; empty: none
    secret    it is never shown, only whether there is one
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
SWITCH_FIELDS: tuple[Field, ...] = (
    Field("address", "", "Address", required=True),
    Field("name", "", "Name"),
    Field("off_time", "", "Time without power", "of a power cycle", "number", "5", unit="s"),
    Field("driver", "", "Driver", "snmp, or the name of a family or of a row of `drivers:`", default="snmp"),
    Field("protected_ports", "", "Protected ports", "never turned off: uplinks, this manager", "list"),
)


def field_views(values: Mapping[str, str]) -> list[Json]:
    """Every field with the value that config.yaml gives it, if any."""
    return [_view(each, each.key, values) for each in FIELDS]


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
        "secret": field.secret,
        "set": key in values or value is not None,
        "value": None if field.secret else value,
    }
