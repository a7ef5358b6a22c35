"""The kinds of a value: text to value, or ValueError with what was expected. No place and no file here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from utility.config.settings import MAX_POOL, Pool
from utility.drivers import Oid, oid
from utility.rules import AlertSeverity, parse_time

T = TypeVar("T")


def whole(low: int, high: int) -> Callable[[str], int]:
    def kind(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return kind


def number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    def kind(text: str) -> float:
        if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{0,15})?", text) or not low <= float(text) <= high:
            raise ValueError(f"expected a number{unit} from {low:g} to {high:g}")
        return float(text)

    return kind


def choice(*choices: str) -> Callable[[str], str]:
    def kind(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected {' or '.join(choices)}")
        return text

    return kind


def pattern(pattern: str, expected: str) -> Callable[[str], str]:
    def kind(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return kind


def text(text: str) -> str:
    return text


def span(low: float, high: float) -> Callable[[str], float]:
    """`300`, `5m` -> seconds."""

    def kind(text: str) -> float:
        seconds = parse_time(text)
        if not low <= seconds <= high:
            raise ValueError(f"expected a time from {low:g} to {high:g} seconds")
        return seconds

    return kind


def severity(text: str) -> AlertSeverity:
    if text not in list(AlertSeverity):
        raise ValueError(f"expected {', '.join(AlertSeverity)}")
    return AlertSeverity(text)


rule_name = pattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", "a name of letters, digits, _ . and -")
mail_address = pattern(r"[^\s@,;<>\"']{1,64}@[A-Za-z0-9.-]{1,253}", "an address, like ops@example.org")


def url(text: str) -> str:
    expected = "expected an address that begins with https:// or http://"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    is_ascii = text.isascii() and text.isprintable() and " " not in text
    if not is_ascii or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(expected)
    if parts.username or parts.password:
        raise ValueError("expected an address without a user in it; a token goes into .env as PIMAN_WEBHOOK_TOKEN=...")
    return text


def host_and_port(text: str) -> tuple[str, int]:
    host, _colon, port = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host) or (
        port and (not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535)
    ):
        raise ValueError("expected a server, like mail.example.org or mail.example.org:587")
    return host, int(port or 0)


def address(text: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ValueError("expected an IPv4 address like 172.30.4.1") from None
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        raise ValueError("expected the IPv4 address of one machine")
    return address


def mask(text: str) -> int:
    """A subnet mask -> its prefix length."""
    expected = "expected a subnet mask from 255.0.0.0 to 255.255.255.252, like 255.255.255.0"
    try:
        zeros = int(IPv4Address(text)) ^ 0xFFFFFFFF
    except ValueError:
        raise ValueError(expected) from None
    if zeros & (zeros + 1):
        raise ValueError("its ones are not all on the left; " + expected)
    if not 8 <= 32 - zeros.bit_length() <= 30:
        raise ValueError(expected)
    return 32 - zeros.bit_length()


def ports(text: str) -> frozenset[int]:
    """`7` or `1-4` -> the ports."""
    first, _, last = text.partition("-")
    port = whole(1, 1024)
    low, high = port(first.strip()), port(last.strip() or first.strip())
    if low > high:
        raise ValueError("the first port comes after the last")
    return frozenset(range(low, high + 1))


def protocol(names: Collection[str], others: dict[str, str]) -> Callable[[str], str]:
    """The name of a protocol of SNMP 3, in any case, with or without -, or one of the `others`; or none."""
    known = {name.replace("-", ""): name for name in names} | others | {"NONE": "none"}

    def kind(text: str) -> str:
        name = re.sub(r"[-_]", "", text.upper())
        if name not in known:
            raise ValueError(f"expected {', '.join(names)} or none")
        return known[name]

    return kind


def flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


def listen(text: str) -> str:
    """An address to listen on, of either family; 0.0.0.0 and :: are all of them."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("expected an address of this machine, like 127.0.0.1, or 0.0.0.0 for all of them") from None


def pool(text: str) -> Pool:
    """`172.30.4.100-172.30.4.150` -> the first and the last address."""
    first, _, last = text.partition("-")
    try:
        low, high = address(first.strip()), address(last.strip())
    except ValueError:
        raise ValueError("expected the first and the last address, like 172.30.4.100-172.30.4.150") from None
    if low > high:
        raise ValueError("the first address comes after the last")
    if int(high) - int(low) > MAX_POOL:
        raise ValueError(f"a pool has at most {MAX_POOL + 1} addresses")
    return low, high


def network(text: str) -> IPv4Network:
    """`10.2.0.0/24`, or the address alone, whose mask stands beside it."""
    try:
        network = IPv4Network(text)
    except ValueError:
        raise ValueError("expected a network, like 10.2.0.0/24") from None
    if "/" in text and not 8 <= network.prefixlen <= 30:
        raise ValueError("expected a network from /8 to /30")
    return network


def or_word(word: str, kind: Callable[[str], T]) -> Callable[[str], T | None]:
    """`word` stands for None."""

    def read(text: str) -> T | None:
        if text.lower() == word:
            return None
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return read


def board(text: str) -> str:
    """A hostname or a MAC, in lower case."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return text.replace("-", ":").lower()
    if not re.fullmatch(_LABEL, text):
        raise ValueError("expected true, false, or a list of hostnames and MACs")
    return text.lower()


def object_id(text: str) -> Oid:
    """`1.3.6.1.2.1.105.1.1.1.3` or `.1.3...`"""
    if not re.fullmatch(r"\.?[0-2](\.[0-9]{1,10}){2,64}", text):
        raise ValueError("expected an OID in numbers, like 1.3.6.1.2.1.105.1.1.1.3")
    return oid(text.lstrip("."))


def column_value(text: str) -> int | str:
    """What stands in a switch's column: a number, or a word."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text.lower()


def command(text: str) -> str:
    stray = re.search(r"\{(?!port\}|address\})[a-z_]+\}", text)
    if stray:
        raise ValueError(
            f"{stray[0]} is not known; expected a command with {{port}} and, where it wants it, {{address}}"
        )
    return text


def base_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?/?", text):
        raise ValueError("expected https://HOST or https://HOST:PORT")
    return text.rstrip("/")


def fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("expected the SHA-256 of the certificate, 64 hexadecimal digits")
    return digits


path = pattern(r"[^\x00-\x1f]{1,4096}", "a path")
interface = pattern(r"[A-Za-z0-9_.-]{1,15}", "a network interface's name, like eth0")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
domain = pattern(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", "a domain name, like rack.example.org")
# SWITCH on the command line is an address, a number or a name: a name must not look like the other two.
switch_name = pattern(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9_-]{0,62})", "a name of letters, digits, - and _")
driver_name = pattern(r"[a-z0-9][a-z0-9-]{0,62}", "a driver's name of small letters, digits and -")
site_name = pattern(
    r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?", "a short name, of letters, digits, spaces and . _ -"
)
unifi_site = pattern(r"[A-Za-z0-9_-]{1,64}", "the site's short name, as in the controller's address bar")
community = pattern(r"\S.{0,254}", "a community of 1 to 255 characters")
user = pattern(r"\S{1,32}", "a user's name of 1 to 32 characters")
password = pattern(r".{8,255}", "a password of 8 to 255 characters, as SNMP 3 wants it")
auth_protocol = protocol(("MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"), {"SHA1": "SHA"})
priv_protocol = protocol(("DES", "AES", "AES-192", "AES-256", "AES-192-C", "AES-256-C"), {"AES128": "AES"})
