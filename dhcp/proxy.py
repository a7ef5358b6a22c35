"""Boot information beside somebody else's DHCP server: message and `now` in, actions out. Must hold no socket or clock.

A classroom has a DHCP server already, and it knows nothing of Pis. A Pi's boot loader collects OFFERs until it has both
an address and the name of a boot server, and it does not mind if they come from two machines (PXE specification 2.1,
"ProxyDHCP"). So:

 1  DISCOVER of a Pi's boot loader whose MAC is in hosts.csv: an OFFER with all that a boot needs, but no address and
    no times. To a Pi 3B as late as it can hear it: that it comes late also wakes the ROM for the other server's OFFER.
 2  Everything else, from anyone: nothing. There is no ACK from us, as no REQUEST is for us, and nothing is refused.
 3  The address is the other server's, so it is learnt: from the Pi's REQUEST, which it sends to all (option 50), from
    the other server's OFFER or ACK where that goes to all, from the Pi's ARP, and from its first TFTP request. The
    boot ROM of a 3B answers no ARP, so what was learnt of it is made known to the kernel.

UDP port 4011 is not used. It is where a PXE client that has its address asks the proxy for the boot server that the
user chose from the menu. A Pi has no user and no menu: it looks for its words in the OFFER and takes the sender.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

from dhcp.boards import Asker, Nature
from dhcp.clients import EVENT_AGAIN, Client, Clients
from dhcp.packet import NO_ADDRESS, MessageType, Op, Option, Packet
from dhcp.replies import Action, DhcpSettings, Ignore, Notice, Pin, Replies, Unpin
from utility.hosts import Host
from utility.service import Report, Stage

_LEFT = Ignore("left to the other DHCP server")


class ProxyPolicy:
    """The rules above; called as DhcpPolicy is. All but `host_of_lease` is used by one thread.

    find    mac -> Host, or None for one that is not in hosts.csv. The address there is of no use here
    """

    is_proxy = True
    probes = True  # rule 3: ARP is listened to
    deadline: float | None = None

    def __init__(self, settings: DhcpSettings, find: Callable[[str], Host | None]) -> None:
        self.settings = settings
        self._find = find
        self._clients = Clients()
        self._replies = Replies(settings)
        self._at: dict[IPv4Address, Host] = {}  # the Pis where they are; read by other threads, one key at a time
        self._of: dict[str, IPv4Address] = {}
        self._pinned: set[IPv4Address] = set()

    def host_of_lease(self, address: IPv4Address) -> Host | None:
        """The Pi that the other server gave that address. Any thread."""
        return self._at.get(address)

    def tick(self, now: float) -> list[Action]:  # noqa: ARG002 - nothing here waits
        return []

    def receive(self, request: Packet, now: float) -> list[Action]:
        """What to do about a message; `now` in seconds of a clock that never goes back."""
        kind = request.number(Option.MESSAGE_TYPE)
        if request.op != Op.REQUEST or kind not in range(1, 9):
            return [Ignore("no message of a client")]
        if not request.mac:
            return [Ignore("not Ethernet")]
        host = self._find(request.mac)
        if host is None:
            return self._clients.stranger(request, kind, self.settings.unknown_pis == "approve", now)
        client = self._clients.get(host.mac)
        asker = self._clients.asker(client, request, kind, is_pi=True)
        if kind == MessageType.DISCOVER:
            return self._discover(request, host, client, asker, now)
        if kind == MessageType.REQUEST:
            return self._request(request, host, client, asker, now)
        return [_LEFT]

    def claimed(self, address: IPv4Address, mac: str, now: float) -> list[Action]:
        """That MAC said by ARP, or by a TFTP request, that it has that address."""
        host = self._find(mac)
        if host is None or self._of.get(mac) == address:
            return []
        client = self._clients.get(mac)
        return self._learn(host, address, client, client.asker, "", now)

    def overheard(self, reply: Packet, server: IPv4Address, mac: str, now: float) -> list[Action]:  # noqa: ARG002
        """The other server's word to a client."""
        kind, host = reply.number(Option.MESSAGE_TYPE), self._find(reply.mac)
        if host is None or reply.yiaddr == NO_ADDRESS or kind not in (MessageType.OFFER, MessageType.ACK):
            return []
        client = self._clients.get(host.mac)
        if kind == MessageType.OFFER and client.asker.traits.requests:
            return []  # it may take another's; its REQUEST will tell
        return self._learn(host, reply.yiaddr, client, client.asker, "", now)

    def _discover(self, request: Packet, host: Host, client: Client, asker: Asker, now: float) -> list[Action]:
        actions: list[Action] = []
        known = self._of.get(host.mac)
        if asker.traits.answers_arp and known in self._pinned:
            self._pinned.discard(known)
            actions.append(Unpin(known))
        stage = Stage.DISCOVER if asker.traits.pxe else None
        event = f"{asker.words} asks for an address" if asker.traits.pxe else ""
        event = event and self._clients.once(client, "discover", EVENT_AGAIN, event, now)
        facts = self._clients.facts(client, asker)
        actions.append(Notice(Report(host.mac, stage, heard="DHCPDISCOVER", event=event, facts=facts), host.name))
        if not asker.traits.boots_pi or request.giaddr != NO_ADDRESS:
            return [*actions, _LEFT]
        if request.xid == client.late_xid and now < client.late_until:
            return [*actions, Ignore("its delayed offer is on the way")]
        delay = asker.traits.deaf if self.settings.reply_delay is None else self.settings.reply_delay
        client.late_xid, client.late_until = request.xid, now + delay
        notice = Notice(Report(host.mac, sent="DHCPOFFER without an address"), host.name)
        reply = self._replies.proxy_offer(request, asker)
        return [*actions, replace(reply, not_before=now + delay if delay else 0.0, notice=notice)]

    def _request(self, request: Packet, host: Host, client: Client, asker: Asker, now: float) -> list[Action]:
        client.asker = asker
        address = request.address(Option.REQUESTED_ADDRESS) or request.ciaddr
        server = request.address(Option.SERVER_IDENTIFIER)
        heard = f"DHCPREQUEST {address}" + (f" to {server}" if server else "")
        return [_LEFT, *self._learn(host, address, client, asker, heard, now)]

    def _learn(
        self, host: Host, address: IPv4Address, client: Client, asker: Asker, heard: str, now: float
    ) -> list[Action]:
        """The Pi is at that address from now on."""
        if address in (NO_ADDRESS, self.settings.server):
            return []
        actions: list[Action] = []
        before = self._of.get(host.mac)
        if before is not None and before != address:
            actions += self._forget(before)
        if address in self._at and self._at[address].mac != host.mac:
            actions += self._forget(address)
        self._of[host.mac] = address
        self._at[address] = replace(host, address=address)
        if not asker.traits.answers_arp and address not in self._pinned:
            self._pinned.add(address)
            actions.append(Pin(address, host.mac))
        text = f"{asker.words} has {address} from another DHCP server"
        event = self._clients.once(client, asker.traits.words, EVENT_AGAIN, text, now)
        stage = None if asker.nature is Nature.INSTALLER else Stage.LEASE if asker.traits.pxe else Stage.UP
        facts = {"address": str(address), **asker.facts}
        return [*actions, Notice(Report(host.mac, stage, heard, event=event, facts=facts), host.name)]

    def _forget(self, address: IPv4Address) -> list[Action]:
        del self._of[self._at.pop(address).mac]
        if address not in self._pinned:
            return []
        self._pinned.discard(address)
        return [Unpin(address)]
