"""config.yaml and .env, parsed into frozen dataclasses: what the rest of the house sees of it.

    settings    the dataclasses, with their defaults, and ConfigError
    keys        the names of the keys and variables, and which of them are secret
    kinds       text to value
    sheet       the files as text with places, and the list of problems
    reading     text to Config, with switches (snmp, drivers, switches) and monitoring (rules, channels, healing)
    checks      what the values must be to one another

The same kinds serve config.yaml and the PIMAN_ variables. All problems are raised together, as ConfigError. No service,
no log and no hosts.csv here.
"""

from __future__ import annotations

from utility.config.keys import is_secret
from utility.config.reading import load_config
from utility.config.settings import (
    HOW,
    MAX_POOL,
    SERVICES,
    Channel,
    Commands,
    Config,
    ConfigError,
    Controller,
    Healing,
    Monitoring,
    Pool,
    Ports,
    Problem,
    SnmpAccess,
    Subnet,
    Switch,
    Web,
    with_calibrations,
)

__all__ = [
    "HOW",
    "MAX_POOL",
    "SERVICES",
    "Channel",
    "Commands",
    "Config",
    "ConfigError",
    "Controller",
    "Healing",
    "Monitoring",
    "Pool",
    "Ports",
    "Problem",
    "SnmpAccess",
    "Subnet",
    "Switch",
    "Web",
    "is_secret",
    "load_config",
    "with_calibrations",
]
