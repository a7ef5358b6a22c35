"""What to answer to a DHCP message: message and `now` in, actions out. Must hold no socket, clock, file or logger.

The rules, in the order in which they are tried (RFC 2131 section 4.3):

 1  Replies, relayed messages, other hardware than Ethernet, BOOTP: nothing.
 2  A MAC that is not in hosts.csv: nothing on the wire, whatever it asks; its DISCOVER is reported.
 3  DISCOVER: an OFFER of the address in hosts.csv. To a Pi's boot loader also what it needs to boot.
 4  REQUEST with a server identifier (SELECTING): an ACK if it is ours. Another server's: nothing, and a warning.
 5  REQUEST with option 50 alone (INIT-REBOOT), or with ciaddr (RENEWING, REBINDING): ACK if it is the address in
    hosts.csv, else NAK.
 6  INFORM: an ACK without address and times. DECLINE, RELEASE: reported.

Where a reply goes (RFC 2131 section 4.1): a NAK to all; to ciaddr if the client has it; to all if it set the broadcast
flag; else straight to its MAC.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from dhcp.packet import (
    BOOT_ROM_GUID,
    NO_ADDRESS,
    Board,
    MessageType,
    Op,
    Option,
    Packet,
    Value,
    fit,
    make_reply,
    parse_guid,
)
from utility.hosts import Host
from utility.service import Report, Severity, Stage

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
BROADCAST = IPv4Address("255.255.255.255")

# Option 43 as a Pi's boot loader wants it (RFC 2132 section 8.4, sub-options of the PXE specification 2.1):
#   06 01 03                        discovery control 3: no multicast, no broadcast discovery, the menu decides
#   0a 04 00 "PXE"                  menu prompt, timeout 0
#   09 17 0000 14 "Raspberry ..."   boot menu: entry 0
# The three blanks are for the boot ROM of the Pi 3B, which compares 20 characters. Later loaders ignore what follows
# "Raspberry Pi Boot", so all get the same.
PI_BOOT_MENU = b"\x06\x01\x03" + b"\x0a\x04\x00PXE" + b"\x09\x17\x00\x00\x14Raspberry Pi Boot   " + b"\xff"

BOOT_ROM_XID = 0x26F30339  # every Pi 3 loader sends this xid, whichever board
# The boot ROM of the Pi 3B sleeps through a reply that comes within a second of its DISCOVER.
BOOT_ROM_DELAY = 1.2

MIN_MESSAGE = 576  # IP datagram that every client takes (RFC 2131 section 2)
MAX_MESSAGE = 1500  # what fits an Ethernet frame, whatever the client says it takes
IP_AND_UDP = 28

MAX_CLIENTS = 16384  # remembered at once; hosts.csv is rarely as long
EVENT_AGAIN = 5.0  # the same milestone within this time is the same boot, or a retry of it
WARNING_AGAIN = 60.0

# What a client without option 55 gets, in this order.
STANDARD_LIST = (
    Option.ROUTER,
    Option.DOMAIN_NAME_SERVER,
    Option.HOST_NAME,
    Option.DOMAIN_NAME,
    Option.BROADCAST_ADDRESS,
    Option.NTP_SERVERS,
)


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """What every lease says. `lease_time` in seconds. Without `ntp_servers` the server itself is one."""

    server: IPv4Address
    network: IPv4Network
    lease_time: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """A report to forward, and the Pi's name for the log; no name: a stranger, whose doings are logged at debug."""

    report: Report
    name: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `packet` to UDP `port` of `address`.

    mac           where the frame goes; "": the client has its address, the kernel finds the way
    not_before    the same clock as `now`; 0: at once
    neighbour     the client will answer no ARP: pin `packet.yiaddr` to `packet.mac` before sending
    notice        to forward once it is sent
    """

    packet: Packet
    address: IPv4Address
    mac: str = ""
    port: int = 68
    not_before: float = 0.0
    neighbour: bool = False
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """No answer. `reason` is one of a fixed set, so that counting by it stays small."""

    reason: str


Action = Reply | Ignore | Notice


class Role(Enum):
    """What speaks from a Pi's MAC, by the vendor class it sends; the value is what a human reads."""

    BOOT_LOADER = "the boot loader"
    OTHER_PXE = "a PXE client that is no Pi"
    INSTALLER = "the installer"
    SYSTEM = "the operating system"


# The stage that an ACK to it means.
_STAGES: Mapping[Role, Stage | None] = {
    Role.BOOT_LOADER: Stage.LEASE,
    Role.OTHER_PXE: Stage.LEASE,
    Role.INSTALLER: None,  # the hello protocol will tell
    Role.SYSTEM: Stage.UP,
}


def role_of(vendor_class: str) -> Role:
    """A Pi says it is an x86 BIOS (arch 0, RFC 4578). That the MAC is in hosts.csv is what tells it from a PC."""
    if vendor_class.startswith("PXEClient"):
        return Role.BOOT_LOADER if vendor_class.startswith("PXEClient:Arch:00000") else Role.OTHER_PXE
    return Role.INSTALLER if vendor_class.startswith("piman-installer") else Role.SYSTEM


@dataclass(slots=True)
class _Client:
    """What is remembered of a host: its last DISCOVER, and when it was last spoken of."""

    vendor_class: str = ""
    guid: bytes = b""
    answer_at: float = 0.0  # a delayed OFFER is on its way until then
    said: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One message of a known host, with what the host's DISCOVER said where this message does not."""

    request: Packet
    host: Host
    client: _Client
    now: float
    role: Role
    guid: bytes

    @property
    def boot_rom(self) -> bool:
        """The mask ROM of a Pi 3, or its bootcode.bin, which cannot be told apart by the xid."""
        return self.role is Role.BOOT_LOADER and (self.guid == BOOT_ROM_GUID or self.request.xid == BOOT_ROM_XID)

    @property
    def speaker(self) -> str:
        model = parse_guid(self.guid).model
        return f"{self.role.value} of a {model}" if model else self.role.value


def _facts(board: Board) -> dict[str, str]:
    facts = {"model": board.model, "serial": board.serial, "revision": board.revision}
    return {key: value for key, value in facts.items() if value}


def _printable(text: str) -> str:
    """A stranger's text for a human: at most 64 characters, none that moves a cursor."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:64])


class DhcpPolicy:
    """The rules above for one subnet. Used by one thread.

    find    mac -> Host, or None for one that is not in hosts.csv; asked anew for each message, so an edit counts
            from the next message on
    """

    def __init__(self, settings: DhcpSettings, find: Callable[[str], Host | None]) -> None:
        self.settings = settings
        self._find = find
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._provided = self._provide()
        self._handlers: Mapping[int, Callable[[_Exchange], list[Action]]] = {
            MessageType.DISCOVER: self._discover,
            MessageType.REQUEST: self._request,
            MessageType.DECLINE: self._decline,
            MessageType.RELEASE: self._release,
            MessageType.INFORM: self._inform,
        }

    def receive(self, request: Packet, now: float) -> list[Action]:
        """What to do about a message; `now` in seconds of a clock that never goes back."""
        kind = request.number(Option.MESSAGE_TYPE)
        handler = self._handlers.get(kind)
        if handler is None or request.op != Op.REQUEST:
            return [Ignore("no message of a client")]
        if request.giaddr != NO_ADDRESS:
            return [Ignore("relayed")]
        if not request.mac:
            return [Ignore("not Ethernet")]
        host = self._find(request.mac)
        if host is None:
            return self._stranger(request, kind)
        if host.address not in self.settings.network or host.address == self.settings.server:
            return [Ignore("its address in hosts.csv is none of this network")]
        return handler(self._exchange(request, kind, host, now))

    def _exchange(self, request: Packet, kind: int, host: Host, now: float) -> _Exchange:
        client = self._clients.setdefault(host.mac, _Client())
        self._clients.move_to_end(host.mac)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        vendor_class, guid = request.text(Option.VENDOR_CLASS), request.raw(Option.CLIENT_GUID)
        if kind == MessageType.DISCOVER:
            client.vendor_class, client.guid = vendor_class, guid
        elif kind == MessageType.REQUEST and Option.SERVER_IDENTIFIER in request.options:
            # EEPROM boot loaders of early 2020 leave options 60 and 97 out of the REQUEST. Only the REQUEST that
            # follows the DISCOVER may lean on it: one of another state comes from the system that was booted since.
            vendor_class, guid = vendor_class or client.vendor_class, guid or client.guid
        return _Exchange(request, host, client, now, role_of(vendor_class), guid)

    # --- the messages ---

    def _stranger(self, request: Packet, kind: int) -> list[Action]:
        ignore = Ignore("unknown MAC")
        if kind != MessageType.DISCOVER:
            return [ignore]
        facts = _facts(parse_guid(request.raw(Option.CLIENT_GUID)))
        vendor_class = _printable(request.text(Option.VENDOR_CLASS))
        hints = [f'vendor class "{vendor_class}"'] if vendor_class else []
        hints += [f"{key} {value}" for key, value in facts.items()]
        text = "asks for an address, but is not in hosts.csv" + (f" ({', '.join(hints)})" if hints else "")
        return [ignore, Notice(Report(request.mac, heard="DHCPDISCOVER", event=text, facts=facts))]

    def _discover(self, it: _Exchange) -> list[Action]:
        if it.boot_rom and it.now < it.client.answer_at:
            return [Ignore("its delayed offer is on the way")]
        facts = _facts(parse_guid(it.guid))
        event, stage = "", None
        if it.role in (Role.BOOT_LOADER, Role.OTHER_PXE):
            stage = Stage.DISCOVER
            event = self._once(it, "discover", EVENT_AGAIN, f"{it.speaker} asks for an address")
        heard = Report(it.host.mac, stage, heard="DHCPDISCOVER", event=event, facts=facts)
        if not it.boot_rom:
            sent = Notice(Report(it.host.mac, sent=f"DHCPOFFER {it.host.address}"), it.host.name)
            return [Notice(heard, it.host.name), self._lease(it, MessageType.OFFER, sent)]
        # The ROM never sends a REQUEST: what it is offered, it has. And it is deaf for a second.
        at = it.client.answer_at = it.now + BOOT_ROM_DELAY
        leased = self._leased(it, heard="", sent=f"DHCPOFFER {it.host.address}", milestone=True)
        return [Notice(heard, it.host.name), self._lease(it, MessageType.OFFER, leased, at)]

    def _request(self, it: _Exchange) -> list[Action]:
        server = it.request.address(Option.SERVER_IDENTIFIER)
        requested = it.request.address(Option.REQUESTED_ADDRESS)
        if server is not None and server != self.settings.server:
            text = f"{it.speaker} took the offer of another DHCP server, {server}"
            return [Ignore("took another server's offer"), self._warn(it, "foreign", f"DHCPREQUEST to {server}", text)]
        if server is not None:  # SELECTING: what it does not say is what we offered
            state, wanted = "selecting", requested or it.host.address
        elif it.request.ciaddr != NO_ADDRESS:
            state, wanted = "renewing", it.request.ciaddr
        elif requested is not None:
            state, wanted = "init-reboot", requested
        else:
            return [Ignore("a REQUEST of no state")]
        heard = f"DHCPREQUEST {wanted} ({state})"
        if wanted != it.host.address:
            return [self._nak(it, heard, wanted)]
        leased = self._leased(it, heard, f"DHCPACK {wanted}", milestone=state != "renewing")
        # Only a client that renews has its address up; ciaddr means nothing in the other states.
        return [self._lease(it, MessageType.ACK, leased, ciaddr=wanted if state == "renewing" else NO_ADDRESS)]

    def _inform(self, it: _Exchange) -> list[Action]:
        if it.request.ciaddr not in self.settings.network:
            return [Ignore("an INFORM from another network")]
        notice = self._leased(it, "DHCPINFORM", "DHCPACK", milestone=False)
        return [self._lease(it, MessageType.ACK, notice, ciaddr=it.request.ciaddr, inform=True)]

    def _decline(self, it: _Exchange) -> list[Action]:
        if it.request.address(Option.SERVER_IDENTIFIER) != self.settings.server:
            return [Ignore("declined another server's offer")]
        # The address is the one a human wrote into hosts.csv: there is no other to give, but somebody must be told.
        wanted = it.request.address(Option.REQUESTED_ADDRESS)
        text = f"{it.speaker} declined {wanted}: another machine on the network uses it"
        return [self._warn(it, "decline", f"DHCPDECLINE {wanted}", text)]

    def _release(self, it: _Exchange) -> list[Action]:
        if it.request.address(Option.SERVER_IDENTIFIER) != self.settings.server:
            return [Ignore("released another server's lease")]
        event = self._once(it, "release", EVENT_AGAIN, f"{it.speaker} gave {it.request.ciaddr} back")
        return [Notice(Report(it.host.mac, heard="DHCPRELEASE", event=event), it.host.name)]

    # --- what is told ---

    def _once(self, it: _Exchange, key: str, again: float, text: str) -> str:
        """The text, or "" if one of this key was told of this host within `again` seconds: anyone can forge a MAC."""
        last = it.client.said.get(key)
        if last is not None and it.now < last + again:
            return ""
        it.client.said[key] = it.now
        return text

    def _leased(self, it: _Exchange, heard: str, sent: str, milestone: bool) -> Notice:
        text = f"{it.speaker} has {it.host.address}"
        event = self._once(it, it.role.value, EVENT_AGAIN, text) if milestone else ""
        facts = {"address": str(it.host.address), **_facts(parse_guid(it.guid))}
        return Notice(Report(it.host.mac, _STAGES[it.role], heard, sent, event, facts=facts), it.host.name)

    def _warn(self, it: _Exchange, key: str, heard: str, text: str) -> Notice:
        event = self._once(it, key, WARNING_AGAIN, text)
        severity = Severity.WARNING if event else Severity.INFO
        return Notice(Report(it.host.mac, heard=heard, event=event, severity=severity), it.host.name)

    # --- the replies ---

    def _provide(self) -> dict[int, Value]:
        """The options that are the same for every host."""
        settings = self.settings
        provided: dict[int, Value] = {
            Option.BROADCAST_ADDRESS: settings.network.broadcast_address,
            Option.NTP_SERVERS: settings.ntp_servers or (settings.server,),
        }
        if settings.router is not None:
            provided[Option.ROUTER] = (settings.router,)
        if settings.dns:
            provided[Option.DOMAIN_NAME_SERVER] = settings.dns
        if settings.domain:
            provided[Option.DOMAIN_NAME] = settings.domain
        return provided

    def _base(self, it: _Exchange, kind: MessageType) -> dict[int, Value]:
        options: dict[int, Value] = {
            Option.MESSAGE_TYPE: kind,
            Option.SERVER_IDENTIFIER: self.settings.server,
        }
        identifier = it.request.raw(Option.CLIENT_IDENTIFIER)
        if identifier:  # RFC 6842: a client must get it back
            options[Option.CLIENT_IDENTIFIER] = identifier
        return options

    def _options(self, it: _Exchange, kind: MessageType, inform: bool) -> dict[int, Value]:
        """Options of an OFFER or ACK: what is required, then what was asked for, in the client's order."""
        options = self._base(it, kind)
        if not inform:  # RFC 2131 section 4.3.5: no times for a client that has its address from elsewhere
            options[Option.LEASE_TIME] = self.settings.lease_time
            options[Option.RENEWAL_TIME] = self.settings.lease_time // 2
            options[Option.REBINDING_TIME] = self.settings.lease_time * 7 // 8
        # RFC 2132 section 3.3: before the router, whatever the order asked for.
        options[Option.SUBNET_MASK] = self.settings.network.netmask
        if it.role is Role.BOOT_LOADER:
            # A boot loader wants 43 or 66, and which of them wins is not known: both say the same server.
            options[Option.VENDOR_CLASS] = "PXEClient"
            options[Option.VENDOR_SPECIFIC] = PI_BOOT_MENU
            options[Option.TFTP_SERVER_NAME] = str(self.settings.server)
        if it.role in (Role.BOOT_LOADER, Role.OTHER_PXE) and it.guid:
            options[Option.CLIENT_GUID] = it.guid  # RFC 4578 section 2.3
        for code in it.request.requested() or STANDARD_LIST:
            if code == Option.HOST_NAME and it.host.hostname:
                options.setdefault(code, it.host.hostname)
            elif code in self._provided:
                options.setdefault(code, self._provided[code])
        size = it.request.number(Option.MAX_MESSAGE_SIZE, MIN_MESSAGE)
        return fit(options, min(max(size, MIN_MESSAGE), MAX_MESSAGE) - IP_AND_UDP)

    def _lease(
        self,
        it: _Exchange,
        kind: MessageType,
        notice: Notice,
        not_before: float = 0.0,
        ciaddr: IPv4Address = NO_ADDRESS,
        inform: bool = False,
    ) -> Reply:
        """An OFFER or ACK, and where it goes: to `ciaddr`, where the client is known to have it."""
        packet = make_reply(
            it.request,
            self._options(it, kind, inform),
            ciaddr=ciaddr,
            yiaddr=NO_ADDRESS if inform else it.host.address,
            siaddr=self.settings.server,  # for boot loaders; and our installer's last resort to find us
        )
        if ciaddr != NO_ADDRESS:
            return Reply(packet, ciaddr, notice=notice)
        if it.request.wants_broadcast:
            return Reply(packet, BROADCAST, BROADCAST_MAC, 68, not_before, it.boot_rom, notice)
        return Reply(packet, it.host.address, it.request.mac, 68, not_before, it.boot_rom, notice)

    def _nak(self, it: _Exchange, heard: str, wanted: IPv4Address) -> Reply:
        """RFC 2131 section 4.3.2: always to all, as what the client thinks is its address is wrong."""
        text = f"{it.speaker} asked for {wanted}, its address is {it.host.address}"
        event = self._once(it, "nak", EVENT_AGAIN, text)
        report = Report(it.host.mac, heard=heard, sent="DHCPNAK", event=event)
        options = self._base(it, MessageType.NAK) | {Option.MESSAGE: f"your address is {it.host.address}"}
        packet = make_reply(it.request, fit(options, MIN_MESSAGE - IP_AND_UDP))
        return Reply(packet, BROADCAST, BROADCAST_MAC, notice=Notice(report, it.host.name))
