"""The sockets of DHCP: raw ones that hear and send whole frames, and the one that holds the port. No decision, no log.

A crowd of clients is heard and answered with one system call for many frames (recvmmsg(2), sendmmsg(2)). Such a call
never waits, and keeps the interpreter's lock: Python's own calls let go of it for each frame, and to get it back may
take milliseconds while another thread works.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

from dhcp.frames import ETHERTYPE_ARP, ETHERTYPE_IP

BURST = 64  # frames in one call
MAX_FRAME = 9216  # a jumbo frame; a longer one is cut, and no message
RECEIVE_BUFFER = 1 << 20  # a rack that powers on at once

# linux/if_packet.h, asm-generic/socket.h, linux/in.h
SOL_PACKET, PACKET_AUXDATA = 263, 8
PACKET_OTHERHOST, PACKET_OUTGOING = 3, 4
TP_STATUS_CSUMNOTREADY = 1 << 3
SO_ATTACH_FILTER = 26

# Classic BPF: code, jump if true, jump if false, operand. The frame starts at its Ethernet header.
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_IP_SIZE, _LOAD_HALF_AT_X = 0x20, 0x28, 0x30, 0xB1, 0x48
_JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_Program = list[tuple[int, int, int, int]]
NOTHING: _Program = [(_RETURN, 0, 0, 0)]


def udp_to(*ports: int, ours: IPv4Address) -> _Program:
    """A filter that passes Ethernet frames with IPv4 UDP datagrams, or their first fragments, to one of `ports`.

    What comes from our own address is our own, as the loopback interface shows it once more.
    """
    more = len(ports)
    return [
        (_LOAD_HALF, 0, 0, 12),
        (_JUMP_EQUAL, 0, 8 + more, ETHERTYPE_IP),  # jumps count from the next line
        (_LOAD_WORD, 0, 0, 26),
        (_JUMP_EQUAL, 6 + more, 0, int(ours)),
        (_LOAD_BYTE, 0, 0, 23),
        (_JUMP_EQUAL, 0, 4 + more, socket.IPPROTO_UDP),
        (_LOAD_HALF, 0, 0, 20),
        (_JUMP_ANY_BIT, 2 + more, 0, 0x1FFF),
        (_LOAD_IP_SIZE, 0, 0, 14),
        (_LOAD_HALF_AT_X, 0, 0, 14 + 2),
        *((_JUMP_EQUAL, more - at, 0, port) for at, port in enumerate(ports)),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, MAX_FRAME),
    ]


def arp() -> _Program:
    return [(_LOAD_HALF, 0, 0, 12), (_JUMP_EQUAL, 0, 1, ETHERTYPE_ARP), (_RETURN, 0, 0, MAX_FRAME), *NOTHING]


def _attach(sock: socket.socket, program: _Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


def _explain(error: OSError, text: str) -> OSError:
    return OSError(error.errno, f"{text}: {error.strerror}")


# sys/socket.h, linux/if_packet.h: as C lays them out on this machine


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class _Sender(ctypes.Structure):
    """struct sockaddr_ll."""

    _fields_ = (
        ("family", ctypes.c_uint16),
        ("protocol", ctypes.c_uint16),
        ("interface", ctypes.c_int),
        ("hardware", ctypes.c_uint16),
        ("packet_type", ctypes.c_uint8),
        ("mac_length", ctypes.c_uint8),
        ("mac", ctypes.c_uint8 * 8),
    )


class _Control(ctypes.Structure):
    """struct cmsghdr with the start of struct tpacket_auxdata, the only control message that was asked for."""

    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("status", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 16),
    )


class _Slots:
    """Room for BURST frames, and what the kernel is to know of it."""

    def __init__(self, receives: bool) -> None:
        self.data = bytearray(BURST * MAX_FRAME)
        self.frames = [memoryview(self.data)[at * MAX_FRAME : (at + 1) * MAX_FRAME] for at in range(BURST)]
        self.senders = (_Sender * BURST)()
        self.controls = (_Control * BURST)()
        self.messages = (_Message * BURST)()
        self.pieces = (_Piece * BURST)()
        self._base = (ctypes.c_char * len(self.data)).from_buffer(self.data)
        for at, message in enumerate(self.messages):
            self.pieces[at].base = ctypes.addressof(self._base) + at * MAX_FRAME
            self.pieces[at].length = MAX_FRAME
            header = message.header
            header.pieces, header.piece_count = ctypes.addressof(self.pieces[at]), 1
            if receives:
                header.name, header.name_length = ctypes.addressof(self.senders[at]), ctypes.sizeof(_Sender)
                header.control, header.control_length = ctypes.addressof(self.controls[at]), ctypes.sizeof(_Control)
        self.fresh = bytes(self.messages)  # the kernel writes into the headers


class FrameSocket:
    """A raw socket of one interface, for whole frames. Used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._in, self._out = _Slots(receives=True), _Slots(receives=False)
        libc = ctypes.PyDLL(None, use_errno=True)  # CDLL would let go of the lock
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> FrameSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def interface(self) -> str:
        """Its name now; "": it was removed."""
        return str(self._socket.getsockname()[0])

    @property
    def mac(self) -> str:
        return bytes(self._socket.getsockname()[4]).hex(":")

    def receive(self) -> list[tuple[bytes, bool, int]]:
        """The frames that wait, BURST at most: each with whether its checksum is filled in, and its packet type.

        OSError where the interface is down or gone.
        """
        slots = self._in
        ctypes.memmove(slots.messages, slots.fresh, len(slots.fresh))
        count = self._recvmmsg(self.fileno(), slots.messages, BURST, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        frames = []
        for at in range(count):
            control = slots.controls[at]
            ready = not control.status & TP_STATUS_CSUMNOTREADY
            data = slots.frames[at][: slots.messages[at].length].tobytes()
            frames.append((data, ready, slots.senders[at].packet_type))
        return frames

    def send(self, frame: bytes) -> None:
        """OSError where it cannot be."""
        self._socket.send(frame)

    def send_all(self, frames: Sequence[bytes]) -> list[OSError]:
        """Send up to BURST frames; why some were not."""
        slots = self._out
        for at, frame in enumerate(frames):
            slots.frames[at][: len(frame)] = frame
            slots.pieces[at].length = len(frame)
        failures: list[OSError] = []
        at = 0
        while at < len(frames):
            rest = ctypes.byref(slots.messages, at * ctypes.sizeof(_Message))
            count = self._sendmmsg(self.fileno(), rest, len(frames) - at, socket.MSG_DONTWAIT)
            if count < 0:  # of the first of them; it is passed over
                number = ctypes.get_errno()
                failures.append(OSError(number, os.strerror(number)))
            at += max(count, 1)
        return failures


def open_raw(interface: str, ethertype: int, program: _Program) -> FrameSocket:
    """Bound after its filter is in place, so that it never holds a frame that the filter would refuse."""
    try:
        socket.if_nametoindex(interface)
    except OSError as error:
        others = ", ".join(name for _, name in socket.if_nameindex())
        raise OSError(errno.ENODEV, f"there is no network interface {interface}; there are: {others}") from error
    try:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except OSError as error:
        raise _explain(error, "DHCP needs raw sockets: root, or the capability CAP_NET_RAW") from error
    try:
        _attach(raw, program)
        raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        raw.setblocking(False)
        raw.bind((interface, ethertype))
    except OSError as error:
        raw.close()
        raise _explain(error, f"a raw socket on {interface}") from error
    return FrameSocket(raw)


def open_udp(interface: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        _attach(udp, NOTHING)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        udp.setblocking(False)
        udp.bind(("", port))
    except OSError as error:
        udp.close()
        if error.errno == errno.EADDRINUSE:
            raise _explain(error, f"UDP port {port} on {interface}, another DHCP server runs here") from error
        raise _explain(error, f"UDP port {port} on {interface}") from error
    return udp
