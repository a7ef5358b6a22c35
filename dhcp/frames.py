"""What DHCP messages travel in: Ethernet, IPv4 and UDP; and ARP, which asks who has an address. Must hold no decision.

RFC 826 (ARP), RFC 768 (UDP), RFC 791 (IPv4), RFC 1071 (the checksum).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from dhcp.packet import PacketError

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
ETHERTYPE_IP, ETHERTYPE_ARP = 0x0800, 0x0806

_ETHERNET = struct.Struct("!6s6sH")
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_PROTOCOL_UDP = 17
_DO_NOT_FRAGMENT = 0x4000
_FRAGMENT = 0x3FFF  # more fragments, or an offset


def _ones_sum(data: bytes | bytearray) -> int:
    """Sum of 16-bit words in one's complement (RFC 1071), 0 standing for 0xFFFF: 65536 is 1 modulo 65535."""
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big") % 0xFFFF


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + struct.pack("!HH", _PROTOCOL_UDP, length)


@dataclass(frozen=True, slots=True)
class Frame:
    """An Ethernet frame with one whole UDP datagram over IPv4. MACs are `aa:bb:cc:dd:ee:ff`."""

    source_mac: str
    destination_mac: str
    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    payload: bytes

    def encode(self) -> bytes:
        length = _UDP.size + len(self.payload)
        source, destination = self.source.packed, self.destination.packed
        udp = _UDP.pack(self.source_port, self.destination_port, length, 0)
        total = _ones_sum(_pseudo_header(source, destination, length) + udp + self.payload)
        # 0 would say "no checksum" (RFC 768), so it is sent as 0xFFFF; the sum 0 stands for 0xFFFF as well.
        udp = udp[:6] + (0xFFFF - total or 0xFFFF).to_bytes(2, "big")
        fields = (0x45, 0, _IP.size + length, 0, _DO_NOT_FRAGMENT, 64, _PROTOCOL_UDP)
        check = 0xFFFF - _ones_sum(_IP.pack(*fields, 0, source, destination))
        ethernet = _ETHERNET.pack(_mac_bytes(self.destination_mac), _mac_bytes(self.source_mac), ETHERTYPE_IP)
        return ethernet + _IP.pack(*fields, check, source, destination) + udp + self.payload


def seal(frame: bytearray) -> None:
    """Fill in both checksums, which are 0, of a frame with a UDP datagram and no IP options."""
    length = len(frame) - _ETHERNET.size - _IP.size
    frame[24:26] = (0xFFFF - _ones_sum(frame[14:34])).to_bytes(2, "big")
    # The pseudo header is the two addresses, which are just before the datagram, the protocol and the length.
    total = (_ones_sum(frame[26:]) + _PROTOCOL_UDP + length) % 0xFFFF
    frame[40:42] = (0xFFFF - total or 0xFFFF).to_bytes(2, "big")


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ip_payload(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Source, destination and payload of an IPv4 packet that carries whole UDP; what the frame was padded with goes."""
    if len(data) < _IP.size:
        raise PacketError("truncated IP header")
    version, _tos, total, _id, fragment, _ttl, protocol, _check, source, destination = _IP.unpack_from(data)
    size = (version & 15) * 4
    if version >> 4 != 4 or not _IP.size <= size <= total <= len(data):
        raise PacketError("IP lengths do not agree")
    if protocol != _PROTOCOL_UDP or fragment & _FRAGMENT:
        raise PacketError("not one whole UDP datagram")
    if _ones_sum(data[:size]):
        raise PacketError("IP checksum is wrong")
    return source, destination, data[size:total]


def parse_frame(data: bytes, checksum_ready: bool = True) -> Frame:
    """Read a frame; PacketError where it is no UDP over IPv4 or a checksum is wrong.

    checksum_ready    False for a frame from a neighbour on the same machine, whose UDP checksum is still to be filled
                      in by a network card that it will never meet (TP_STATUS_CSUMNOTREADY in packet(7))
    """
    if len(data) < _ETHERNET.size:
        raise PacketError("truncated Ethernet header")
    to, sender, ethertype = _ETHERNET.unpack_from(data)
    if ethertype != ETHERTYPE_IP:
        raise PacketError(f"not IPv4 but {ethertype:04x}")
    source, destination, udp = _ip_payload(data[_ETHERNET.size :])
    if len(udp) < _UDP.size:
        raise PacketError("truncated UDP header")
    source_port, destination_port, length, check = _UDP.unpack_from(udp)
    if not _UDP.size <= length <= len(udp):
        raise PacketError("UDP length does not agree")
    udp = udp[:length]
    # The boot ROM of a Pi 3 sends no UDP checksum at all, that is 0.
    if check and checksum_ready and _ones_sum(_pseudo_header(source, destination, length) + udp):
        raise PacketError("UDP checksum is wrong")
    return Frame(
        sender.hex(":"),
        to.hex(":"),
        IPv4Address(source),
        IPv4Address(destination),
        source_port,
        destination_port,
        udp[_UDP.size :],
    )


# --- ARP ---

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_ETHERNET, _ARP_REQUEST = 1, 1


@dataclass(frozen=True, slots=True)
class Arp:
    """What one ARP packet says of its sender: request or reply, both tell (RFC 826)."""

    mac: str
    address: IPv4Address


def encode_arp_request(mac: str, address: IPv4Address, wanted: IPv4Address) -> bytes:
    """A frame to all that asks who has `wanted`, from the owner of `mac` and `address`."""
    body = _ARP.pack(
        _ARP_ETHERNET, ETHERTYPE_IP, 6, 4, _ARP_REQUEST, _mac_bytes(mac), address.packed, bytes(6), wanted.packed
    )
    # A network card sends no frame shorter than 60 bytes; a virtual one would.
    return (_ETHERNET.pack(_mac_bytes(BROADCAST_MAC), _mac_bytes(mac), ETHERTYPE_ARP) + body).ljust(60, b"\0")


def parse_arp(data: bytes) -> Arp:
    """Read a frame; PacketError where it is no ARP for IPv4 over Ethernet."""
    if len(data) < _ETHERNET.size + _ARP.size:
        raise PacketError("truncated ARP packet")
    if _ETHERNET.unpack_from(data)[2] != ETHERTYPE_ARP:
        raise PacketError("not ARP")
    hardware, protocol, hardware_size, protocol_size, _operation, mac, address, _, _ = _ARP.unpack_from(data, 14)
    if (hardware, protocol, hardware_size, protocol_size) != (_ARP_ETHERNET, ETHERTYPE_IP, 6, 4):
        raise PacketError("ARP for something else than IPv4 over Ethernet")
    return Arp(mac.hex(":"), IPv4Address(address))
