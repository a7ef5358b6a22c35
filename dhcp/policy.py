"""What to do about a DHCP message: message and `now` in, actions out. Must hold no socket, clock, file or logger.

The rules, in the order in which they are tried (RFC 2131 section 4.3):

 1  Replies, other hardware than Ethernet, BOOTP: nothing. A relay agent's network decides what is given (RFC 3046);
    one that is not in config.yaml: nothing, and a warning.
 2  A MAC that is not in hosts.csv gets what `unknown_pis` says:
      ignore     nothing on the wire, whatever it asks; its DISCOVER is reported
      approve    the same; one that looks like a Pi is reported as waiting for a human
      pool       an address of the pool, after an ARP probe found nobody at it; then it is treated as a known one
 3  DISCOVER: an OFFER of its address. To a Pi's boot loader also what it needs to boot, as late as it can hear it.
 4  REQUEST with a server identifier (SELECTING): an ACK if it is ours. Another server's: nothing, and a warning.
 5  REQUEST with option 50 alone (INIT-REBOOT), or with ciaddr (RENEWING, REBINDING): ACK if it is its address and
    one of the network it is on, else NAK. No record of that MAC: silence.
 6  INFORM: an ACK without address and times. RELEASE: reported; the pool has its address back.
 7  DECLINE: a warning. An address of hosts.csv stays what a human wrote; one of the pool rests for a while.
 8  What another DHCP server says to a Pi of ours, or to anyone, is a warning.

Only the MAC counts, not option 61: boot ROM, kernel and system of one Pi say three different things there, or nothing,
and are to have one address. Which program asks (boards.py) is taken from its DISCOVER.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from dhcp.boards import Asker, Nature
from dhcp.clients import EVENT_AGAIN, Client, Clients
from dhcp.leases import Lease, Pool
from dhcp.packet import NO_ADDRESS, MessageType, Op, Option, Packet, RelayOption, relay_address
from dhcp.replies import (
    Action,
    DhcpSettings,
    ForgetLease,
    Ignore,
    Notice,
    Probe,
    Question,
    Replies,
    Reply,
    SaveLease,
    Subnet,
)
from utility.hosts import Host
from utility.service import Report, Stage

PROBE_TIME = 0.4  # a machine on the same wire answers ARP within milliseconds; the most impatient client waits 0.5 s

# The stage that an ACK to a program means. A boot loader of any kind has its lease; of our installer the hello
# protocol tells.
_STAGES: Mapping[Nature, Stage | None] = {Nature.INSTALLER: None, Nature.KERNEL: Stage.UP, Nature.SYSTEM: Stage.UP}


@dataclass(frozen=True, slots=True)
class _Exchange(Question):
    """One message of somebody who has an address with us. `arrived`: before the address was probed."""

    client: Client
    arrived: float
    now: float
    address: str  # the host's, in words
    pool: Pool | None = None  # where its address comes from; None: hosts.csv


@dataclass(slots=True)
class _Probing:
    """A DISCOVER that waits until it is clear that nobody uses the address it is to get."""

    request: Packet
    subnet: Subnet
    pool: Pool
    lease: Lease
    arrived: float
    deadline: float


@dataclass(frozen=True, slots=True)
class _Held:
    """What a MAC that is not in hosts.csv is known by as long as it has an address of a pool."""

    pool: Pool
    host: Host


def _end(lease: tuple[str, IPv4Address, float]) -> float:
    return lease[2]


class DhcpPolicy:
    """The rules above. All but `host_of_lease` is used by one thread.

    find          mac -> Host, or None for one that is not in hosts.csv; asked anew for each message, so an edit
                  counts from the next message on
    by_address    address -> Host in hosts.csv, for the pool's rule 5
    leases        what SaveLease said before a restart: MAC, address, Unix time of its end
    epoch         the Unix time at `now` = 0

    deadline      when `tick` wants to be called next; None: not before something comes in
    """

    is_proxy = False

    def __init__(
        self,
        settings: DhcpSettings,
        find: Callable[[str], Host | None],
        by_address: Callable[[IPv4Address], Host | None] = lambda _: None,
        leases: Iterable[tuple[str, IPv4Address, float]] = (),
        epoch: float = 0.0,
    ) -> None:
        self.settings = settings
        self._find, self._by_address, self._epoch = find, by_address, epoch
        self._clients = Clients()
        self._replies = Replies(settings)
        self._home = settings.home
        self._subnets = (self._home, *settings.subnets)
        self._pools = {
            subnet.network: Pool(*subnet.pool, self._is_taken)
            for subnet in self._subnets
            if subnet.pool is not None and settings.unknown_pis == "pool"
        }
        self._leased: dict[IPv4Address, Host] = {}  # the Pis of the pools; read by other threads, one key at a time
        self._held: dict[str, _Held] = {}
        self._probing: OrderedDict[IPv4Address, _Probing] = OrderedDict()  # in the order of their deadlines
        self._handlers: Mapping[int, Callable[[_Exchange], list[Action]]] = {
            MessageType.DISCOVER: self._discover,
            MessageType.REQUEST: self._request,
            MessageType.DECLINE: self._decline,
            MessageType.RELEASE: self._release,
            MessageType.INFORM: self._inform,
        }
        # Where two claim one address, the later one has it.
        newest = {lease[1]: lease for lease in sorted(leases, key=_end)}
        for mac, address, expires in sorted(newest.values(), key=_end):
            self._restore(mac, address, expires - epoch)

    @property
    def deadline(self) -> float | None:
        return next(iter(self._probing.values())).deadline if self._probing else None

    @property
    def probes(self) -> bool:
        """Whether it needs ARP at all."""
        return bool(self._pools)

    def host_of_lease(self, address: IPv4Address) -> Host | None:
        """The Pi of a pool that has that address. Any thread."""
        return self._leased.get(address)

    # --- what comes in ---

    def plain_host(self, mac: str) -> Host | None:
        """Its host in hosts.csv, where no pool has anything to do with it."""
        return None if mac in self._held else self._find(mac)

    def receive(self, request: Packet, now: float, host: Host | None = None) -> list[Action]:
        """What to do about a message; `now` in seconds of a clock that never goes back.

        host    of a message that came in a while ago: who it was then
        """
        kind = request.number(Option.MESSAGE_TYPE)
        if kind not in self._handlers or request.op != Op.REQUEST:
            return [Ignore("no message of a client")]
        if not request.mac:
            return [Ignore("not Ethernet")]
        subnet = self._subnet_of(request)
        if subnet is None:
            text = f"a DHCP relay, {request.giaddr}, asks for a network that is not among `subnets:`"
            return [
                Ignore("relayed from an unknown network"),
                *self._clients.warn_of_network(f"relay {request.giaddr}", text, now),
            ]
        host = host or self._find(request.mac)
        if host is None:
            return self._stranger(request, kind, subnet, now)
        before = self._adopt(host.mac) if host.mac in self._held else []
        return before + self._handle(request, kind, host, subnet, now, now)

    def recognised(self, like: Packet, said: Asker, host: Host, now: float) -> list[Notice]:
        """What `receive` tells of a message that was answered as `like` was (prepared.py); only that.

        like    another client's, the same but for what is each client's own
        said    what `identify` makes of this one's
        """
        kind = like.number(Option.MESSAGE_TYPE)
        client = self._clients.get(host.mac)
        asker = self._clients.asker(client, like, kind, is_pi=True, said=said)
        it = _Exchange(like, host, self._home, asker, client, now, now, str(host.address))
        if kind == MessageType.DISCOVER:
            if asker.traits.requests:  # nothing comes between the two: one report of both
                return [self._asked(it, sent=f"DHCPOFFER {it.address}")]
            return [self._asked(it), self._offered(it)]
        return [self._acknowledged(it, "selecting" if Option.SERVER_IDENTIFIER in like.options else "init-reboot")]

    def tick(self, now: float) -> list[Action]:
        """Nobody answered for the addresses whose time is over: they are given."""
        actions: list[Action] = []
        while self._probing and self.deadline is not None and self.deadline <= now:
            actions += self._proven(self._probing.popitem(last=False)[1], now)
        return actions

    def claimed(self, address: IPv4Address, mac: str, now: float) -> list[Action]:
        """That MAC said by ARP that it has that address."""
        it = self._probing.pop(address, None)
        if it is None:
            return []
        if mac == it.request.mac:  # it has kept the address that it had from us
            return self._proven(it, now)
        it.pool.quarantine(it.lease, now)
        forget = self._drop(it.request.mac)
        text = f"{mac} uses {address}, an address of the pool that was given to nobody"
        warning = self._clients.warn_of_network(f"pool {address}", text, now)
        return [*forget, *warning, *self._allot(it.request, it.subnet, it.pool, it.arrived, now)]

    def overheard(self, reply: Packet, server: IPv4Address, mac: str, now: float) -> list[Action]:
        """A server's message to a client, from that address and MAC (rule 8)."""
        kind = reply.number(Option.MESSAGE_TYPE)
        server = reply.address(Option.SERVER_IDENTIFIER) or server
        if kind not in (MessageType.OFFER, MessageType.ACK, MessageType.NAK) or server == self.settings.server:
            return []
        words = f"another DHCP server, {server} ({mac}),"
        actions: list[Action] = []
        actions += self._clients.warn_of_network(f"server {server}", f"{words} answers on this network", now)
        host = self._find(reply.mac)
        if host is not None and kind != MessageType.NAK:
            verb = "offered" if kind == MessageType.OFFER else "gave"
            report = Report(host.mac, event=f"{words} {verb} it {reply.yiaddr}")
            actions.append(self._clients.warn(self._clients.get(host.mac), "overheard", report, host.name, now))
        return actions

    # --- who is answered, and on which network ---

    def _subnet_of(self, request: Packet) -> Subnet | None:
        """The network the client is on; None for a relay's that we do not know."""
        link = relay_address(request, RelayOption.LINK_SELECTION) or request.giaddr  # RFC 3527
        if link == NO_ADDRESS:
            # A renewal comes straight from the client's network, past its relay.
            found = (each for each in self.settings.subnets if request.ciaddr in each.network)
            return next(found, self._home)
        return next((each for each in self._subnets if link in each.network), None)

    def _handle(
        self, request: Packet, kind: int, host: Host, subnet: Subnet, arrived: float, now: float,
        pool: Pool | None = None,
    ) -> list[Action]:  # fmt: skip
        if host.address == self.settings.server or not any(host.address in each.network for each in self._subnets):
            return [Ignore("its address in hosts.csv is none of this network")]
        client = self._clients.get(host.mac)
        asker = self._clients.asker(client, request, kind, is_pi=pool is None)
        return self._handlers[kind](
            _Exchange(request, host, subnet, asker, client, arrived, now, str(host.address), pool)
        )

    def _stranger(self, request: Packet, kind: int, subnet: Subnet, now: float) -> list[Action]:
        pool = self._pools.get(subnet.network)
        if pool is not None:
            return self._pooled(request, kind, subnet, pool, now)
        return self._clients.stranger(request, kind, self.settings.unknown_pis == "approve", now)

    # --- the pool ---

    def _is_taken(self, address: IPv4Address) -> bool:
        settings = self.settings
        return address == settings.server or address in settings.reserved or self._by_address(address) is not None

    def _restore(self, mac: str, address: IPv4Address, expires: float) -> None:
        for pool in self._pools.values():
            if address in pool and self._find(mac) is None and pool.restore(mac, address, expires):
                self._hold(mac, address, pool)

    def _hold(self, mac: str, address: IPv4Address, pool: Pool) -> _Held:
        held = self._held.get(mac)
        if held is None:
            held = self._held[mac] = _Held(pool, Host(mac, address, "pi-" + mac.replace(":", "")[-6:]))
            self._leased[address] = held.host
        return held

    def _drop(self, mac: str) -> list[Action]:
        """It has no address of a pool any more."""
        held = self._held.pop(mac)
        del self._leased[held.host.address]
        self._probing.pop(held.host.address, None)
        return [ForgetLease(mac)]

    def _adopt(self, mac: str) -> list[Action]:
        """It is to have no address of that pool: a human wrote it into hosts.csv, or it was moved."""
        self._held[mac].pool.forget(mac)
        return self._drop(mac)

    def _pooled(self, request: Packet, kind: int, subnet: Subnet, pool: Pool, now: float) -> list[Action]:
        """Rule 2 for one that gets an address nonetheless."""
        held = self._held.get(request.mac)
        before = self._adopt(request.mac) if held is not None and held.pool is not pool else []
        if kind == MessageType.DISCOVER:
            return before + self._allot(request, subnet, pool, now, now)
        if request.mac not in self._held:
            return [*before, Ignore("unknown MAC")]
        return self._handle(request, kind, self._held[request.mac].host, subnet, now, now, pool)

    def _allot(self, request: Packet, subnet: Subnet, pool: Pool, arrived: float, now: float) -> list[Action]:
        """Answer a DISCOVER with an address of the pool, as soon as it is known to be free."""
        lease, lost = pool.allot(request.mac, now, request.address(Option.REQUESTED_ADDRESS))
        actions = [action for each in lost for action in self._drop(each.mac)]
        if lease is None:
            text = "the pool has no address left for Pis that are not in hosts.csv; make `pool:` larger"
            warning = self._clients.warn_of_network(f"pool of {subnet.network}", text, now)
            return [*actions, Ignore("the pool is empty"), *warning]
        host = self._hold(request.mac, lease.address, pool).host
        if lease.proven or subnet is not self._home:  # ARP does not reach beyond a relay
            return actions + self._handle(request, MessageType.DISCOVER, host, subnet, arrived, now, pool)
        if lease.address in self._probing:
            self._probing[lease.address].request = request
            return [*actions, Ignore("its address is being probed")]
        self._probing[lease.address] = _Probing(request, subnet, pool, lease, arrived, now + PROBE_TIME)
        return [*actions, Probe(lease.address)]

    def _proven(self, it: _Probing, now: float) -> list[Action]:
        it.lease.proven = True
        host = self._leased[it.lease.address]
        return self._handle(it.request, MessageType.DISCOVER, host, it.subnet, it.arrived, now, it.pool)

    def _bind(self, it: _Exchange) -> list[Action]:
        """The client has its address from now on; if it is the pool's, that is worth remembering."""
        lease = it.pool.of(it.host.mac) if it.pool is not None else None
        if it.pool is None or lease is None:
            return []
        it.pool.bind(lease, it.now, it.subnet.lease_time)
        return [SaveLease(lease.mac, lease.address, lease.expires + self._epoch)]

    # --- the messages ---

    def _discover(self, it: _Exchange) -> list[Action]:
        if it.host.address not in it.subnet.network:
            text = f"{it.asker.words} asks on {it.subnet.network}, where its address {it.host.address} is of no use"
            return [Ignore("its address is of another network"), self._warn(it, "network", "DHCPDISCOVER", text)]
        client, traits = it.client, it.asker.traits
        if it.request.xid == client.late_xid and it.now < client.late_until:
            return [Ignore("its delayed offer is on the way")]
        actions: list[Action] = [self._asked(it)]
        if it.asker.nature is Nature.BOOT_ROM and it.request.giaddr != NO_ADDRESS:
            text = "the boot ROM of a Pi 3B cannot boot through a DHCP relay: give it a bootcode.bin on an SD card"
            actions.append(self._warn(it, "relay", "", text))
        reply = self._replies.offer(it)
        if not traits.requests:  # what it is offered, it has: it may never send a REQUEST
            actions += self._bind(it)
        return [*actions, self._delayed(it, replace(reply, notice=self._offered(it)))]

    def _asked(self, it: _Exchange, sent: str = "") -> Notice:
        event, stage = "", None
        if it.asker.traits.pxe:
            stage = Stage.DISCOVER
            event = self._once(it, "discover", f"{it.asker.words} asks for an address")
        facts = self._clients.facts(it.client, it.asker)
        return Notice(Report(it.host.mac, stage, "DHCPDISCOVER", sent, event, facts=facts), it.host.name)

    def _offered(self, it: _Exchange) -> Notice:
        sent = f"DHCPOFFER {it.address}"
        if it.asker.traits.requests:
            return Notice(Report(it.host.mac, sent=sent), it.host.name)
        return self._leased_notice(it, heard="", sent=sent, milestone=True)

    def _delayed(self, it: _Exchange, reply: Reply) -> Reply:
        """Not before the client can hear it. Counted from its DISCOVER, however long the probe took."""
        traits, wanted = it.asker.traits, self.settings.reply_delay
        delay = traits.deaf if wanted is None or not traits.boots_pi else wanted
        if not delay:
            return reply
        it.client.late_xid, it.client.late_until = it.request.xid, it.arrived + delay
        return replace(reply, not_before=it.client.late_until)

    def _request(self, it: _Exchange) -> list[Action]:
        server = it.request.address(Option.SERVER_IDENTIFIER)
        requested = it.request.address(Option.REQUESTED_ADDRESS)
        if server is not None and server not in (self.settings.server, self._replies.identifier(it.request)):
            return self._took_another(it, server)
        if server is not None:  # SELECTING: what it does not say is what we offered
            state, wanted = "selecting", requested or it.host.address
        elif it.request.ciaddr != NO_ADDRESS:
            state, wanted = "renewing", it.request.ciaddr
        elif requested is not None:
            state, wanted = "init-reboot", requested
        else:
            return [Ignore("a REQUEST of no state")]
        wrong = self._why_wrong(it, wanted)
        if wrong:
            return [self._nak(it, f"DHCPREQUEST {wanted} ({state})", wanted, wrong)]
        leased = self._acknowledged(it, state)
        # Only a client that renews has its address up; ciaddr means nothing in the other states.
        reply = self._replies.ack(it, wanted if state == "renewing" else NO_ADDRESS)
        return [*self._bind(it), replace(reply, notice=leased)]

    def _acknowledged(self, it: _Exchange, state: str) -> Notice:
        heard = f"DHCPREQUEST {it.address} ({state})"
        return self._leased_notice(it, heard, f"DHCPACK {it.address}", milestone=state != "renewing")

    def _took_another(self, it: _Exchange, server: IPv4Address) -> list[Action]:
        text = f"{it.asker.words} took the offer of another DHCP server, {server}"
        everywhere = self._clients.warn_of_network(
            f"server {server}", f"another DHCP server, {server}, answers on this network", it.now
        )
        pi = self._warn(it, "foreign", f"DHCPREQUEST to {server}", text)
        return [Ignore("took another server's offer"), pi, *everywhere]

    def _why_wrong(self, it: _Exchange, wanted: IPv4Address) -> str:
        """What speaks against that address for that client; "": nothing."""
        if wanted not in it.subnet.network:
            return f"it is on {it.subnet.network}"
        if wanted != it.host.address:
            return f"its address is {it.host.address}"
        revoked = it.pool is not None and it.pool.of(it.host.mac) is None
        return "hosts.csv gives that to another" if revoked else ""

    def _nak(self, it: _Exchange, heard: str, wanted: IPv4Address, wrong: str) -> Reply:
        event = self._once(it, "nak", f"{it.asker.words} asked for {wanted}, but {wrong}")
        report = Report(it.host.mac, heard=heard, sent="DHCPNAK", event=event)
        return replace(self._replies.nak(it, wrong), notice=Notice(report, it.host.name))

    def _inform(self, it: _Exchange) -> list[Action]:
        if it.request.ciaddr not in it.subnet.network:
            return [Ignore("an INFORM from another network")]
        notice = self._leased_notice(it, "DHCPINFORM", "DHCPACK", milestone=False)
        return [replace(self._replies.ack_inform(it), notice=notice)]

    def _decline(self, it: _Exchange) -> list[Action]:
        if it.request.address(Option.SERVER_IDENTIFIER) != self._replies.identifier(it.request):
            return [Ignore("declined another server's offer")]
        wanted = it.request.address(Option.REQUESTED_ADDRESS)
        text = f"{it.asker.words} declined {wanted}: another machine on the network uses it"
        actions: list[Action] = [self._warn(it, "decline", f"DHCPDECLINE {wanted}", text)]
        lease = it.pool.of(it.host.mac) if it.pool is not None else None
        if it.pool is not None and lease is not None and lease.address == wanted:
            it.pool.quarantine(lease, it.now)
            actions += self._drop(it.host.mac)
        # An address that a human wrote into hosts.csv stays: there is no other to give, but somebody must be told.
        return actions

    def _release(self, it: _Exchange) -> list[Action]:
        if it.request.address(Option.SERVER_IDENTIFIER) != self._replies.identifier(it.request):
            return [Ignore("released another server's lease")]
        event = self._once(it, "release", f"{it.asker.words} gave {it.request.ciaddr} back")
        actions: list[Action] = [Notice(Report(it.host.mac, heard="DHCPRELEASE", event=event), it.host.name)]
        lease = it.pool.of(it.host.mac) if it.pool is not None else None
        if it.pool is not None and lease is not None:
            it.pool.release(lease, it.now)
            actions.append(SaveLease(lease.mac, lease.address, lease.expires + self._epoch))
        return actions

    # --- what is told ---

    def _once(self, it: _Exchange, key: str, text: str) -> str:
        return self._clients.once(it.client, key, EVENT_AGAIN, text, it.now)

    def _warn(self, it: _Exchange, key: str, heard: str, text: str) -> Notice:
        report = Report(it.host.mac, heard=heard, event=text)
        return self._clients.warn(it.client, key, report, it.host.name, it.now)

    def _leased_notice(self, it: _Exchange, heard: str, sent: str, milestone: bool) -> Notice:
        text = f"{it.asker.words} has {it.address}"
        event = self._once(it, it.asker.traits.words, text) if milestone else ""
        facts = {"address": it.address, **it.asker.facts}
        stage = _STAGES.get(it.asker.nature, Stage.LEASE)
        return Notice(Report(it.host.mac, stage, heard, sent, event, facts=facts), it.host.name)
