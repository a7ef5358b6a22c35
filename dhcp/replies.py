"""What an answer says and which way it goes, once it is decided that there is one. Must hold no decision and no clock.

A reply here depends on nothing but the settings, the host and the request: the same in, the same out.

Where it goes (RFC 2131 section 4.1), in this order:

 1  to the relay agent that brought the request, UDP port 67, with what the agent wrote into option 82 (RFC 3046)
 2  a NAK to all, as what the client thinks is its address is wrong
 3  to `ciaddr`, where the client is known to have that address
 4  to all, where the client says it can hear nothing else yet (the broadcast flag)
 5  straight to its MAC
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from dhcp.boards import Asker
from dhcp.frames import BROADCAST_MAC
from dhcp.packet import (
    BROADCAST_FLAG,
    NO_ADDRESS,
    MessageType,
    Option,
    Packet,
    RelayOption,
    Value,
    encode_option,
    fit,
    make_reply,
    relay_address,
)
from utility.hosts import Host
from utility.service import Report

BROADCAST = IPv4Address("255.255.255.255")
SERVER_PORT, CLIENT_PORT = 67, 68

# Option 43 as a Pi's boot loader wants it (RFC 2132 section 8.4, sub-options of the PXE specification 2.1):
#   06 01 03                        discovery control 3: no multicast, no broadcast discovery, the menu decides
#   0a 04 00 "PXE"                  menu prompt, timeout 0
#   09 17 0000 14 "Raspberry ..."   boot menu: entry 0
# The three blanks are for the boot ROM of the Pi 3B, which compares 20 characters. Later loaders ignore what follows
# "Raspberry Pi Boot", so all get the same.
PI_BOOT_MENU = b"\x06\x01\x03" + b"\x0a\x04\x00PXE" + b"\x09\x17\x00\x00\x14Raspberry Pi Boot   " + b"\xff"

MIN_MESSAGE = 576  # IP datagram that every client takes (RFC 2131 section 2)
MAX_MESSAGE = 1500  # what fits an Ethernet frame, whatever the client says it takes
IP_AND_UDP = 28

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
class Subnet:
    """One network, and what every lease on it says. `lease_time` in seconds. No `ntp_servers`: the server is one."""

    network: IPv4Network
    lease_time: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()
    pool: tuple[IPv4Address, IPv4Address] | None = None  # first and last, for MACs that are not in hosts.csv


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    """The manager's own network, field by field as in Subnet, and what goes for all.

    subnets         the networks behind relays
    unknown_pis     what a MAC gets that is not in hosts.csv: "ignore", "pool", "approve"
    reply_delay     seconds before an OFFER to a Pi's boot loader; None: as long as that kind of board is deaf
    reserved        addresses that no pool gives away: switches, routers
    """

    server: IPv4Address
    network: IPv4Network
    lease_time: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()
    domain: str = ""
    ntp_servers: tuple[IPv4Address, ...] = ()
    pool: tuple[IPv4Address, IPv4Address] | None = None
    subnets: tuple[Subnet, ...] = ()
    unknown_pis: str = "ignore"
    reply_delay: float | None = None
    reserved: frozenset[IPv4Address] = frozenset()

    @property
    def home(self) -> Subnet:
        """The network that the manager itself is on."""
        return Subnet(self.network, self.lease_time, self.router, self.dns, self.domain, self.ntp_servers, self.pool)


# --- what the policies say is to be done ---


@dataclass(frozen=True, slots=True)
class Notice:
    """A report to forward, and the Pi's name for the log; no name: a stranger, or the network as a whole."""

    report: Report
    name: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `packet` to UDP `port` of `address`.

    mac           where the frame goes; "": the client has its address, or is a relay: the kernel finds the way
    not_before    the same clock as `now`; 0: at once
    neighbour     the client will answer no ARP: pin `packet.yiaddr` to `packet.mac` before sending
    notice        to forward once it is sent
    """

    packet: Packet
    address: IPv4Address
    mac: str = ""
    port: int = CLIENT_PORT
    not_before: float = 0.0
    neighbour: bool = False
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """No answer. `reason` is one of a fixed set, so that counting by it stays small."""

    reason: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the network by ARP who has `address`. The answer comes back as an event, silence as a deadline."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Pin:
    """That MAC answers no ARP at that address: let the kernel know it without."""

    address: IPv4Address
    mac: str


@dataclass(frozen=True, slots=True)
class Unpin:
    """What speaks from that address now answers ARP."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class SaveLease:
    """Remember over a restart that the pool gave that address away. `expires` is a Unix time."""

    mac: str
    address: IPv4Address
    expires: float


@dataclass(frozen=True, slots=True)
class ForgetLease:
    """What was remembered of that MAC, if anything, goes for nothing."""

    mac: str


Action = Reply | Ignore | Notice | Probe | Pin | Unpin | SaveLease | ForgetLease


# --- the replies ---


@dataclass(frozen=True, slots=True)
class Question:
    """A request with all that its answer depends on."""

    request: Packet
    host: Host
    subnet: Subnet
    asker: Asker


@dataclass(slots=True)
class Replies:
    """Builds every answer. What is the same for all hosts of a subnet is put together once."""

    settings: DhcpSettings
    _provided: dict[IPv4Network, Mapping[int, Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for subnet in (self.settings.home, *self.settings.subnets):
            self._provided[subnet.network] = self._provide(subnet)

    def _provide(self, subnet: Subnet) -> Mapping[int, Value]:
        provided: dict[int, Value] = {
            Option.BROADCAST_ADDRESS: subnet.network.broadcast_address,
            Option.NTP_SERVERS: subnet.ntp_servers or (self.settings.server,),
        }
        if subnet.router is not None:
            provided[Option.ROUTER] = (subnet.router,)
        if subnet.dns:
            provided[Option.DOMAIN_NAME_SERVER] = subnet.dns
        if subnet.domain:
            provided[Option.DOMAIN_NAME] = subnet.domain
        return provided

    def identifier(self, request: Packet) -> IPv4Address:
        """Our address as this client is to know it: a relay may ask for renewals to go through it (RFC 5107)."""
        return relay_address(request, RelayOption.SERVER_OVERRIDE) or self.settings.server

    def offer(self, it: Question) -> Reply:
        return self._lease(it, MessageType.OFFER)

    def ack(self, it: Question, ciaddr: IPv4Address = NO_ADDRESS) -> Reply:
        """`ciaddr`: it renews, and has that address."""
        return self._lease(it, MessageType.ACK, ciaddr)

    def ack_inform(self, it: Question) -> Reply:
        """RFC 2131 section 4.3.5: no address and no times for a client that has its address from elsewhere."""
        options = self._fit(it.request, self._options(it, MessageType.ACK))
        packet = make_reply(it.request, options, ciaddr=it.request.ciaddr, siaddr=self.settings.server)
        return Reply(packet, it.request.ciaddr)

    def nak(self, it: Question, text: str) -> Reply:
        """RFC 2131 section 4.3.2."""
        request = it.request
        packet = make_reply(
            request, self._fit(request, self._base(request, MessageType.NAK) | {Option.MESSAGE: text}, MIN_MESSAGE)
        )
        if request.giaddr != NO_ADDRESS:
            # The relay must not send it to an address that is wrong.
            return Reply(replace(packet, flags=request.flags | BROADCAST_FLAG), request.giaddr, port=SERVER_PORT)
        if request.ciaddr != NO_ADDRESS and it.subnet.network != self.settings.network:
            return Reply(packet, request.ciaddr)  # it renews from behind a relay: nothing sent to all reaches it
        return Reply(packet, BROADCAST, BROADCAST_MAC)

    def proxy_offer(self, request: Packet, asker: Asker) -> Reply:
        """PXE specification 2.1, "ProxyDHCP": where to boot from, and no address, as another server gives that.

        To the MAC, but to no IP address, as it has none that we know.
        """
        options = self._base(request, MessageType.OFFER) | self._boot_options(asker)
        packet = make_reply(request, self._fit(request, options), siaddr=self.settings.server)
        mac = BROADCAST_MAC if request.wants_broadcast else request.mac
        return Reply(packet, BROADCAST, mac)

    def _lease(self, it: Question, kind: MessageType, ciaddr: IPv4Address = NO_ADDRESS) -> Reply:
        request, seconds = it.request, it.subnet.lease_time
        times: dict[int, Value] = {
            Option.LEASE_TIME: seconds,
            Option.RENEWAL_TIME: seconds // 2,
            Option.REBINDING_TIME: seconds * 7 // 8,
        }
        packet = make_reply(
            request,
            self._fit(request, self._options(it, kind, times)),
            ciaddr=ciaddr,
            yiaddr=it.host.address,
            siaddr=self.settings.server,  # for boot loaders; and our installer's last resort to find us
        )
        if request.giaddr != NO_ADDRESS:
            return Reply(packet, request.giaddr, port=SERVER_PORT)
        if ciaddr != NO_ADDRESS:
            return Reply(packet, ciaddr)
        deaf_to_arp = not it.asker.traits.answers_arp
        if request.wants_broadcast:
            return Reply(packet, BROADCAST, BROADCAST_MAC, neighbour=deaf_to_arp)
        return Reply(packet, it.host.address, request.mac, neighbour=deaf_to_arp)

    def _base(self, request: Packet, kind: MessageType) -> dict[int, Value]:
        options: dict[int, Value] = {
            Option.MESSAGE_TYPE: kind,
            Option.SERVER_IDENTIFIER: self.identifier(request),
        }
        identifier = request.raw(Option.CLIENT_IDENTIFIER)
        if identifier:  # RFC 6842: a client must get it back
            options[Option.CLIENT_IDENTIFIER] = identifier
        return options

    def _boot_options(self, asker: Asker) -> dict[int, Value]:
        options: dict[int, Value] = {}
        if asker.traits.boots_pi:
            # A boot loader wants 43 or 66, and which of them wins is not known: both say the same server.
            options[Option.VENDOR_CLASS] = "PXEClient"
            options[Option.VENDOR_SPECIFIC] = PI_BOOT_MENU
            options[Option.TFTP_SERVER_NAME] = str(self.settings.server)
        if asker.traits.pxe and asker.guid:
            options[Option.CLIENT_GUID] = asker.guid  # RFC 4578 section 2.3
        return options

    def _options(self, it: Question, kind: MessageType, times: dict[int, Value] | None = None) -> dict[int, Value]:
        """Options of an OFFER or ACK: what is required, then what was asked for, in the client's order."""
        options = self._base(it.request, kind) | (times or {})
        # RFC 2132 section 3.3: before the router, whatever the order asked for.
        options[Option.SUBNET_MASK] = it.subnet.network.netmask
        options |= self._boot_options(it.asker)
        provided = self._provided[it.subnet.network]
        for code in it.request.requested() or STANDARD_LIST:
            if code == Option.HOST_NAME and it.host.hostname:
                options.setdefault(code, it.host.hostname)
            elif code in provided:
                options.setdefault(code, provided[code])
        return options

    def _fit(self, request: Packet, options: Mapping[int, Value], size: int | None = None) -> dict[int, Value]:
        """What of it fits the client's buffer; last, as it was, what the relay wrote (RFC 3046 section 2.2)."""
        if size is None:
            size = request.number(Option.MAX_MESSAGE_SIZE, MIN_MESSAGE)
        relayed = request.raw(Option.RELAY_AGENT)
        # One of more than 255 bytes is no relay's work, and would leave no room for the rest.
        last: dict[int, Value] = {Option.RELAY_AGENT: relayed} if 0 < len(relayed) <= 255 else {}
        room = min(max(size, MIN_MESSAGE), MAX_MESSAGE) - IP_AND_UDP
        return fit(options, room - sum(len(encode_option(*item)) for item in last.items())) | last
