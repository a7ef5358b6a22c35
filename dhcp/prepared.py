"""Answers by recognition, for when many ask at once: bytes in, bytes out. Must hold no rule, socket, clock or log.

The rules are in policy.py, and reading a message, deciding and building the answer takes a hundred microseconds. A
whole school that gets its power back asks faster than that. But boards of one kind say the same, but for the few
fields that are each one's own, and are told the same, but for theirs. So what the rules answered is kept, and serves
for everyone who says the same:

 1  A request is cut into what is its client's own (OWN: xid, secs, MAC, and the values of four options) and the
    rest. The rest is compared byte by byte: what is not known in full, is not known.
 2  What the answer also depends on is part of what must be the same: the length of the host's name, what option 97 is
    (not what it says), whether the xid is that of a Pi 3's loader, and for a REQUEST the DISCOVER before it.
 3  Only a DISCOVER that got an OFFER and a REQUEST (SELECTING) that got an ACK are learnt, from a host of hosts.csv
    with an address of the home network, answered at once through the raw socket. No relay, no pool, no NAK, nothing
    that waits or needs a neighbour entry.
 4  Whoever was last answered in another way, or not at all, is barred until the rules have answered him in this way.
 5  An answer is kept only if filling it in again for its own client gives the same bytes.

What is to be told of a message that is answered here the rules say later (server.py). Of each 16 they also see one
whole, and their answer is held against ours: what turns out to be wrong is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from dhcp.boards import BOOT_ROM_GUID, BOOT_ROM_XID, Asker, identify, parse_guid
from dhcp.frames import seal
from dhcp.packet import MAGIC, MessageType, Option, Packet, PacketError
from dhcp.replies import Action, DhcpSettings, Notice, Reply
from utility.hosts import Host

MAX_SEATS = 12_000  # clients remembered at once: fewer than clients.py remembers
MAX_TEMPLATES = 1_024
MAX_LAYOUTS = 8  # of one length: each is compared

# Where things are in a frame without IP options. A slice of a frame is one field.
_DESTINATION_MAC = slice(0, 6)
_IP_START = b"\x08\x00\x45"  # IPv4, and a header of 20 bytes
_IP_HEADER = slice(14, 34)
_DESTINATION = slice(30, 34)
_UDP_LENGTH = slice(38, 40)
_UDP_CHECK = slice(40, 42)
_XID = slice(46, 50)
_FLAGS = 52
_YIADDR = slice(58, 62)
_CHADDR = slice(70, 76)
_MAGIC = slice(278, 282)
_OPTIONS = 282
# All of a request before its options but: the frame's MACs, IP identification and checksum, UDP checksum, xid, secs,
# chaddr. (Flags and the four addresses are compared: they decide which way the answer goes.)
_FIXED = (slice(12, 18), slice(20, 24), slice(26, 40), slice(42, 46), slice(52, 70))
_BEHIND_CHADDR = 76

OWN = frozenset({Option.HOST_NAME, Option.REQUESTED_ADDRESS, Option.CLIENT_IDENTIFIER, Option.CLIENT_GUID})
_NEVER = frozenset({Option.OVERLOAD, Option.RELAY_AGENT})  # options elsewhere, or a relay's
_ROM_XID = BOOT_ROM_XID.to_bytes(4, "big")


@dataclass(slots=True, eq=False)
class _Seat:
    """One client: its host in hosts.csv, and what the answer to its next message depends on."""

    host: Host
    packed: bytes
    name: bytes
    barred: bool
    guid: bytes = b""  # of its last DISCOVER
    discover: Template | None = None  # by which its last DISCOVER was answered, or would have been


@dataclass(slots=True, eq=False)
class Template:
    """An answer, and where in it the client's own values are."""

    frame: bytes  # with checksums of 0
    unicast: bool
    name: slice | None
    identifier: slice | None
    guid: slice | None
    source: _Layout
    key: tuple[object, ...]
    like: Packet  # the message that it was made of
    said: Asker  # who sent that
    used: int = 0


@dataclass(slots=True, eq=False)
class _Layout:
    """Where in a request of one length the client's own values are, and what was answered to those that look so."""

    own: dict[int, slice]
    is_request: bool
    rest: Callable[[bytes], tuple[bytes, ...]]
    templates: dict[tuple[object, ...], Template] = field(default_factory=dict)

    def key(self, frame: bytes, seat: _Seat) -> tuple[object, ...]:
        """All that must be the same for the answer to be the same, but for what is filled in."""
        at = self.own.get(Option.CLIENT_GUID)
        kind = "" if at is None else _kind_of_guid(frame[at], frame[_CHADDR])
        before = seat.discover if self.is_request else None
        return self.rest(frame), len(seat.name), kind, frame[_XID] == _ROM_XID, before

    def guid(self, frame: bytes, seat: _Seat) -> bytes:
        """A REQUEST may leave it out: then it is that of the DISCOVER."""
        at = self.own.get(Option.CLIENT_GUID)
        own = b"" if at is None else frame[at]
        return own or (seat.guid if self.is_request else b"")


@dataclass(slots=True, eq=False)
class Answered:
    """A message that was answered, for the rules to see later. `host`: as it was in hosts.csv then."""

    request: bytes
    arrived: float
    host: Host
    reply: bytes
    template: Template

    @property
    def said(self) -> Asker:
        """Who sent it, as boards.identify says."""
        said = self.template.said
        at = self.template.source.own.get(Option.CLIENT_GUID)
        if at is None:
            return said
        guid = self.request[at]
        return Asker(said.nature, parse_guid(guid, self.chaddr), guid)

    @property
    def chaddr(self) -> bytes:
        return self.request[_CHADDR]

    @property
    def message(self) -> bytes:
        """What the frame holds."""
        return self.request[42 : 34 + int.from_bytes(self.request[_UDP_LENGTH], "big")]


class Prepared:
    """What was learnt, and who asks. Used by one thread.

    find    mac -> the Host that may be answered from here, None for everyone else; asked anew for each message
    """

    def __init__(self, settings: DhcpSettings, find: Callable[[str], Host | None]) -> None:
        self._settings, self._find = settings, find
        self._seats: dict[bytes, _Seat] = {}
        self._layouts: dict[int, list[_Layout]] = {}  # by the length of the frame
        self._size = 0  # templates in all

    def answer(self, frame: bytes, arrived: float, checksum_ready: bool = True) -> Answered | None:
        """The answer to a message like one that was answered before; None: ask the rules."""
        layouts = self._layouts.get(len(frame))
        if layouts is None:
            return None
        host = self._find(frame[_CHADDR].hex(":"))
        if host is None:
            return None
        seat = self._seat(frame, host)
        if seat.barred:
            return None
        found = self._match(layouts, frame, seat)
        if found is None or not _is_whole(frame, checksum_ready):
            return None
        reply = _fill(found, frame, seat)
        if not found.source.is_request:
            seat.discover, seat.guid = found, found.source.guid(frame, seat)
        return Answered(frame, arrived, host, reply, found)

    def observe(
        self, frame: bytes, message: Packet, actions: Sequence[Action], encode: Callable[[Reply], bytes]
    ) -> None:
        """Learn from what the rules said about a message: how to answer the next like it, or that its client is barred.

        encode    a reply -> the frame that it is sent as
        """
        host = self._find(frame[_CHADDR].hex(":"))
        if host is None:
            return
        seat = self._seat(frame, host)
        reply = _plain_reply(actions)
        template = (
            self._learnt(frame, message, seat, reply, encode) if reply is not None and self._is_ours(host) else None
        )
        seat.barred = template is None
        if template is None:
            seat.discover = None
        elif not template.source.is_request:
            seat.discover, seat.guid = template, template.source.guid(frame, seat)

    def forget(self, template: Template) -> bool:
        """It was wrong; False: that was known."""
        known = template.source.templates.pop(template.key, None) is template
        self._size -= known
        return known

    # --- who asks ---

    def _seat(self, frame: bytes, host: Host) -> _Seat:
        """Its seat; a new one where hosts.csv says something else of it now."""
        chaddr = frame[_CHADDR]
        seat, barred = self._seats.get(chaddr), False
        if seat is not None:
            known = seat.host
            if known is host or (known.address is host.address and known.hostname is host.hostname):
                return seat
            if (known.address, known.hostname) == (host.address, host.hostname):
                seat.host = host
                return seat
            barred = seat.barred  # an answer may be under way, whatever hosts.csv says now
        elif len(self._seats) >= MAX_SEATS:
            self._seats = {each: kept for each, kept in self._seats.items() if kept.barred}
        seat = self._seats[chaddr] = _Seat(
            host, host.address.packed, host.hostname.encode(), barred or not self._is_ours(host)
        )
        return seat

    def _is_ours(self, host: Host) -> bool:
        return host.address in self._settings.network and host.address != self._settings.server

    # --- what is answered ---

    @staticmethod
    def _match(layouts: Iterable[_Layout], frame: bytes, seat: _Seat) -> Template | None:
        for layout in layouts:
            found = layout.templates.get(layout.key(frame, seat))
            if found is not None:
                wanted = layout.own.get(Option.REQUESTED_ADDRESS) if layout.is_request else None
                return found if wanted is None or frame[wanted] == seat.packed else None
        return None

    def _learnt(
        self, frame: bytes, message: Packet, seat: _Seat, reply: Reply, encode: Callable[[Reply], bytes]
    ) -> Template | None:
        found = self._match(self._layouts.get(len(frame), ()), frame, seat)
        if found is not None:
            return found
        is_request = reply.packet.number(Option.MESSAGE_TYPE) == MessageType.ACK
        if is_request and seat.discover is None:
            return None
        layout = self._layout(frame, is_request)
        if layout is None:
            return None
        try:
            sent = encode(reply)
        except PacketError:
            return None
        template = _template(layout, layout.key(frame, seat), sent, message)
        if template is None or _fill(template, frame, seat) != sent:
            return None
        layout.templates[template.key] = template
        self._size += 1
        return template

    def _layout(self, frame: bytes, is_request: bool) -> _Layout | None:
        """How that message is laid out; None where it is not of the plain sort that is known here."""
        own = _own_options(frame)
        if own is None:
            return None
        if self._size >= MAX_TEMPLATES:  # somebody makes up messages: begin anew
            self._layouts.clear()
            self._size = 0
        layouts = self._layouts.setdefault(len(frame), [])
        for layout in layouts:
            if layout.own == own and layout.is_request is is_request:
                return layout
        if len(layouts) >= MAX_LAYOUTS:
            return None
        edges = [_BEHIND_CHADDR, *(edge for each in own.values() for edge in (each.start, each.stop)), len(frame)]
        between = (slice(*edges[at : at + 2]) for at in range(0, len(edges), 2))
        layouts.append(_Layout(own, is_request, itemgetter(*_FIXED, *between)))
        return layouts[-1]


def _plain_reply(actions: Iterable[Action]) -> Reply | None:
    """The one reply, where there is nothing to do but to send it at once and to tell (rule 3)."""
    replies = [each for each in actions if not isinstance(each, Notice)]
    if len(replies) != 1 or not isinstance(replies[0], Reply):
        return None
    reply = replies[0]
    is_lease = reply.packet.number(Option.MESSAGE_TYPE) in (MessageType.OFFER, MessageType.ACK)
    return reply if reply.mac and is_lease and not reply.not_before and not reply.neighbour else None


def _kind_of_guid(guid: bytes, chaddr: bytes) -> str:
    """What boards.identify takes from option 97, beside what is echoed and told."""
    if guid == BOOT_ROM_GUID:
        return "ROM"
    return "board" if parse_guid(guid, chaddr).serial else "other"


def _is_whole(frame: bytes, checksum_ready: bool) -> bool:
    """What parse_frame checks beyond the lengths, which are known to be right."""
    if int.from_bytes(frame[_IP_HEADER], "big") % 0xFFFF:
        return False
    if not checksum_ready or frame[_UDP_CHECK] == b"\0\0":
        return True
    length = int.from_bytes(frame[_UDP_LENGTH], "big")
    data = frame[26 : 34 + length]  # addresses, header, payload
    total = int.from_bytes(data if length % 2 == 0 else data + b"\0", "big") + 17 + length
    return total % 0xFFFF == 0


def _options(frame: bytes) -> Iterable[tuple[int, slice]] | None:
    """Each option's code, and where its value is; None where the frame is not laid out as it is here."""
    end = 34 + int.from_bytes(frame[_UDP_LENGTH], "big")
    if frame[12:15] != _IP_START or frame[_MAGIC] != MAGIC or not _OPTIONS <= end <= len(frame):
        return None
    found: list[tuple[int, slice]] = []
    at = _OPTIONS
    while at < end and frame[at] != Option.END:
        if frame[at] == Option.PAD:
            at += 1
            continue
        if at + 1 >= end or at + 2 + frame[at + 1] > end:
            return None
        found.append((frame[at], slice(at + 2, at + 2 + frame[at + 1])))
        at = found[-1][1].stop
    return found


def _own_options(frame: bytes) -> dict[int, slice] | None:
    """Where the client's own values are; None for a message that has one of them in pieces, or is a relay's."""
    found = _options(frame)
    if found is None:
        return None
    codes = [code for code, _ in found]
    if _NEVER.intersection(codes) or any(codes.count(code) > 1 for code in OWN):
        return None
    return {code: at for code, at in found if code in OWN}


def _template(layout: _Layout, key: tuple[object, ...], reply: bytes, message: Packet) -> Template | None:
    at = dict(_options(reply) or ())
    identifier, guid = at.get(Option.CLIENT_IDENTIFIER), at.get(Option.CLIENT_GUID)
    if identifier is not None and Option.CLIENT_IDENTIFIER not in layout.own:
        return None
    frame = bytearray(reply)
    frame[24:26] = frame[_UDP_CHECK] = b"\0\0"
    unicast = reply[_DESTINATION_MAC] == message.chaddr
    name, said = at.get(Option.HOST_NAME), identify(message, is_pi=True)
    return Template(bytes(frame), unicast, name, identifier, guid, layout, key, message, said)


def _fill(template: Template, request: bytes, seat: _Seat) -> bytes:
    """The answer for this client."""
    layout = template.source
    frame = bytearray(template.frame)
    frame[_XID] = request[_XID]
    frame[_YIADDR] = seat.packed
    frame[_CHADDR] = request[_CHADDR]
    if template.unicast:
        frame[_DESTINATION_MAC] = request[_CHADDR]
        frame[_DESTINATION] = seat.packed
    if template.name is not None:
        frame[template.name] = seat.name
    if template.identifier is not None:
        frame[template.identifier] = request[layout.own[Option.CLIENT_IDENTIFIER]]
    if template.guid is not None:
        frame[template.guid] = layout.guid(request, seat)
    seal(frame)
    return bytes(frame)
