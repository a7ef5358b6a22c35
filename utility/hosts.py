"""hosts.csv: which Pi has which address. Read, watched, and written back without losing a human's lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

_MAC = re.compile(r"[0-9a-f]{12}")


def parse_mac(text: str) -> str:
    """`B8-27-EB-01-02-03`, `b827.eb01.0203`, `b827eb010203` ... -> `b8:27:eb:01:02:03`; ValueError."""
    digits = re.sub(r"[:.\-]", "", text.strip().lower())
    if not _MAC.fullmatch(digits):
        raise ValueError(f"{text!r} is no MAC address; write it like b8:27:eb:01:02:03")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


@dataclass(frozen=True, slots=True)
class Host:
    """One Pi of hosts.csv."""

    mac: str  # aa:bb:cc:dd:ee:ff
    address: IPv4Address
    hostname: str = ""
    last_seen: int = 0  # Unix time, 0 never

    @property
    def name(self) -> str:
        """What a human calls it: its hostname, else its address."""
        return self.hostname or str(self.address)
