"""Ethernet, ARP, IPv4 and UDP as bytes, as much of them as a boot ROM has. Holds no socket and no clock."""

from __future__ import annotations

import struct
from typing import NamedTuple

BROADCAST_MAC = b"\xff" * 6
NO_ADDRESS = bytes(4)
BROADCAST = b"\xff" * 4
ARP_REQUEST, ARP_REPLY = 1, 2
_ETHER_IPV4, _ETHER_ARP, _UDP = 0x0800, 0x0806, 17
_FRAGMENT_BITS = 0x3FFF  # more fragments, or an offset
_IP_SIZES, _UDP_HEADER = struct.Struct("!H2xH"), struct.Struct("!HHHH")
_ARP_FIXED = bytes.fromhex("000108000604")  # Ethernet, IPv4, their lengths


class Datagram(NamedTuple):
    """A UDP datagram off the wire. `intact` is False where the UDP checksum is there and wrong (RFC 768)."""

    source_mac: bytes
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    payload: bytes
    intact: bool


class Arp(NamedTuple):
    """An ARP packet for IPv4 over Ethernet (RFC 826)."""

    operation: int
    sender_mac: bytes
    sender: bytes
    target: bytes


def checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071; 0 for data that holds its own right checksum, which is not all zeros."""
    # 65536 is 1 modulo 65535, so this is the sum of the 16-bit words; 0 and 65535 are the same in one's complement.
    return 0xFFFF - (int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big") % 0xFFFF or 0xFFFF)


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + struct.pack("!BBH", 0, _UDP, length)


def encode_udp(
    source_mac: bytes,
    destination_mac: bytes,
    source: tuple[bytes, int],
    destination: tuple[bytes, int],
    payload: bytes,
    ttl: int = 64,
    identification: int = 0,
    with_checksum: bool = True,
) -> bytes:
    """A whole Ethernet frame around `payload`; addresses are (4 bytes, port)."""
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", source[1], destination[1], length, 0) + payload
    if with_checksum:
        total = checksum(_pseudo_header(source[0], destination[0], length) + udp) or 0xFFFF  # 0 would say: none
        udp = udp[:6] + struct.pack("!H", total) + udp[8:]
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + length, identification, 0, ttl, _UDP, 0, source[0], destination[0]
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return destination_mac + source_mac + struct.pack("!H", _ETHER_IPV4) + header + udp


def parse_udp(frame: bytes, verify: bool = True) -> Datagram | None:
    """The UDP datagram in an Ethernet frame; None for anything else, for fragments, and for what is cut short.

    Without `verify` its checksum counts as right.
    """
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != _UDP:
        return None
    header_length = (frame[14] & 15) * 4
    total, fragment = _IP_SIZES.unpack_from(frame, 16)
    start = 14 + header_length
    if header_length < 20 or not header_length + 8 <= total <= len(frame) - 14 or fragment & _FRAGMENT_BITS:
        return None
    source, destination = frame[26:30], frame[30:34]
    source_port, destination_port, length, found = _UDP_HEADER.unpack_from(frame, start)
    if not 8 <= length <= total - header_length:
        return None
    end = start + length
    intact = not verify or found == 0 or checksum(_pseudo_header(source, destination, length) + frame[start:end]) == 0
    return Datagram(frame[6:12], source, source_port, destination, destination_port, frame[start + 8 : end], intact)


def encode_arp(operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    """A whole frame; a request (all-zero `target_mac`) goes to everybody."""
    destination = target_mac if any(target_mac) else BROADCAST_MAC
    body = _ARP_FIXED + struct.pack("!H", operation) + sender_mac + sender + target_mac + target
    return destination + sender_mac + struct.pack("!H", _ETHER_ARP) + body


def parse_arp(frame: bytes) -> Arp | None:
    """The ARP packet in an Ethernet frame, None for anything else."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x06" or frame[14:20] != _ARP_FIXED:
        return None
    (operation,) = struct.unpack("!H", frame[20:22])
    return Arp(operation, frame[22:28], frame[28:32], frame[38:42])
