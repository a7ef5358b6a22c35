"""Which keys config.yaml has, which PIMAN_ variables go with them, and which of them are secret. Data only."""

from __future__ import annotations

import re
from dataclasses import fields

from utility.config.settings import Commands, Healing, Ports, SnmpAccess

TOP = (
    "private_number", "server_address", "subnet_mask", "interface", "switch_count", "lease_time", "router", "dns",
    "domain", "ntp_servers", "dhcp_mode", "reply_delay", "unknown_pis", "pool", "serve_firmware_updates",
    "local_stratum", "ntp_rate_limit", "boot_dir", "image", "state_dir", "log_dir", "services", "site",
)  # fmt: skip
TOP_SECTIONS = ("switches", "drivers", "subnets", "ports", "snmp", "monitoring", "web")
SUBNET = ("network", "subnet_mask", "router", "lease_time", "dns", "domain", "ntp_servers", "pool")
PORTS = tuple(each.name for each in fields(Ports))
SNMP = tuple(each.name for each in fields(SnmpAccess))
MONITORING = ("interval", "timeout", "port")
MONITORING_SECTIONS = ("thresholds", "rules", "channels", "healing")
RULE = ("name", "when", "severity", "enabled", "only")
CHANNEL = ("type", "name", "url", "to", "from", "server", "security", "user", "path", "severity", "resolved")
HEALING = tuple(each.name for each in fields(Healing) if each.name != "dry_run")
WEB = ("address", "names", "tls", "certificate", "key")
SWITCH = (
    "name", "pi_addresses", "snmp", "off_time", "power_budget", "driver", "exec", "unifi", "routeros",
    "protected_ports",
)  # fmt: skip
DRIVER = (
    "object_id", "like", "admin", "on", "off", "also_on", "index", "detection", "states", "power_class", "class_zero",
    "watts", "watts_unit", "watts_source", "watts_by_port", "capacity", "capacity_unit", "consumption",
    "consumption_unit", "fdb", "read_only",
)  # fmt: skip
EXEC = tuple(each.name for each in fields(Commands))
CONTROLLER = ("server", "user", "site", "fingerprint")
PASSWORDS = ("auth_password", "priv_password")  # of SNMP 3: in no config.yaml
_SECRET_KEYS = frozenset(
    {"read_community", "write_community", *PASSWORDS, "channels", "url", "slack_webhook", "web_password"}
)
ALERT_SECRETS = ("slack_webhook", "smtp_password", "webhook_token")
CONTROLLER_SECRETS = ("unifi_password", "routeros_password")
SECRET_VARIABLES = frozenset(
    {
        *(f"PIMAN_{key.upper()}" for key in CONTROLLER_SECRETS),
        *(f"PIMAN_SNMP_{key.upper()}" for key in ("read_community", "write_community", *PASSWORDS)),
        *(f"PIMAN_{key.upper()}" for key in ALERT_SECRETS),
        "PIMAN_WEB_PASSWORD",
    }
)
VARIABLES = SECRET_VARIABLES | {
    "PIMAN_" + key.upper()
    for key in (
        *TOP,
        *(f"ports_{key}" for key in PORTS),
        *(f"snmp_{key}" for key in SNMP),
        *(f"monitoring_{key}" for key in MONITORING),
        *(f"web_{key}" for key in WEB),
    )
}
# Of one switch, by its name in capitals with _ for -, or by its number where it has no name, like
# PIMAN_SNMP_RACK_A_AUTH_PASSWORD and PIMAN_SNMP_0_USER. Which there are is known when config.yaml has been read.
SWITCH_VARIABLE = re.compile(rf"PIMAN_SNMP_([A-Z0-9_]+?)_({'|'.join(SNMP).upper()})")
# Read by the command line, the bundle, the lab and the tests; they may stand in .env without harm.
_OTHER_VARIABLES = frozenset({"PIMAN_CONFIG", "PIMAN_HOSTS", "PIMAN_ENV", "PIMAN_CACHE", "PIMAN_SOAK"})


def _last(key: str) -> str:
    """`snmp.read_community` and `monitoring.channels[1]` -> `read_community`, `channels`."""
    return key.rpartition(".")[2].partition("[")[0]


def is_secret(key: str) -> bool:
    """Whether the value of a key, by its path, or of a variable is one that is not shown."""
    of_switch = SWITCH_VARIABLE.fullmatch(key)
    return key in SECRET_VARIABLES or _last(of_switch[2].lower() if of_switch else key) in _SECRET_KEYS


def is_unknown(name: str) -> bool:
    known = name in VARIABLES or name in _OTHER_VARIABLES or name.startswith("PIMAN_LAB")
    return name.startswith("PIMAN_") and not known and not SWITCH_VARIABLE.fullmatch(name)
