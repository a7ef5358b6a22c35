"""The pool: addresses for Pis that are not in hosts.csv. Must hold no message, clock, file or logger.

 1  A MAC keeps its address: after its lease has run out, over a restart, and whatever it says of itself (option 61
    changes between boot loader, kernel and system; the MAC does not).
 2  A new MAC gets the address it asks for (option 50) if that is free; else one that nobody ever had; else the one
    whose lease ran out longest ago.
 3  An offer that is not taken up holds its address for a minute.
 4  An address that somebody else was found to use is not given to anyone for ten minutes.
 5  An address that a human writes into hosts.csv leaves the pool at once, whoever had it.

Times are those of the caller's clock. What is given is found in constant time, for pools as large as a /16.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

OFFER_HOLD = 60.0
QUARANTINE = 600.0
MAX_ENDED = 64  # offers that are forgotten in one go
LOOK_AGAIN = 60.0  # an exhausted pool is gone through again, for what left hosts.csv, no more often than this


@dataclass(slots=True)
class Lease:
    """One MAC's address. `proven`: nobody else answered for it since it was last given."""

    mac: str
    address: IPv4Address
    expires: float
    proven: bool = False
    bound: bool = False  # False: offered only

    def holds(self, now: float) -> bool:
        return now < self.expires


class Pool:
    """The addresses from `first` to `last`. `taken` says that an address is not the pool's to give (rule 5)."""

    def __init__(self, first: IPv4Address, last: IPv4Address, taken: Callable[[IPv4Address], bool]) -> None:
        self._first, self._last = first, last
        self._taken = taken
        self._by_mac: dict[str, Lease] = {}
        self._by_address: dict[IPv4Address, Lease] = {}
        # Each in the order in which its entries end, as all in it last equally long.
        self._bound: OrderedDict[str, Lease] = OrderedDict()
        self._offered: OrderedDict[str, Lease] = OrderedDict()
        self._quarantined: OrderedDict[IPv4Address, float] = OrderedDict()
        self._returned: deque[IPv4Address] = deque()
        self._next = int(first)
        self._look_again = 0.0

    def __contains__(self, address: IPv4Address) -> bool:
        return self._first <= address <= self._last

    def restore(self, mac: str, address: IPv4Address, expires: float) -> bool:
        """Take over a lease from before a restart, the one that ends first first; False: it is not ours to keep."""
        if mac in self._by_mac or not self._is_free(address):
            return False
        lease = Lease(mac, address, expires, proven=True, bound=True)
        self._by_mac[mac] = self._by_address[address] = self._bound[mac] = lease
        return True

    def of(self, mac: str) -> Lease | None:
        """What that MAC has or had last; None where it is not the pool's any more (rule 5)."""
        lease = self._by_mac.get(mac)
        return None if lease is None or self._taken(lease.address) else lease

    def allot(self, mac: str, now: float, wanted: IPv4Address | None = None) -> tuple[Lease | None, list[Lease]]:
        """The address to offer that MAC; None: there is none left. And the leases that ended by that."""
        lost: list[Lease] = []
        lease = self._by_mac.get(mac)
        if lease is not None and self._taken(lease.address):
            lost.append(lease)
            self.forget(lease.mac)
            lease = None
        if lease is None:
            address = wanted if wanted is not None and self._is_free(wanted) else self._take(now, lost)
            if address is None:
                return None, lost
            lease = Lease(mac, address, now + OFFER_HOLD)
            self._by_mac[mac] = self._by_address[address] = self._offered[mac] = lease
        elif not lease.holds(now):  # it had it once: nobody else does, but somebody may have helped himself
            lease.proven = False
            lease.expires = now + OFFER_HOLD
            self._order_of(lease).move_to_end(mac)
        return lease, lost

    def bind(self, lease: Lease, now: float, seconds: float) -> None:
        """The client has it from now on."""
        self._order_of(lease).pop(lease.mac)
        lease.bound, lease.expires = True, now + seconds
        self._bound[lease.mac] = lease

    def release(self, lease: Lease, now: float) -> None:
        """The client gave it back. It gets it again if it returns before the address is needed."""
        lease.expires = min(lease.expires, now)
        self._order_of(lease).move_to_end(lease.mac, last=False)

    def forget(self, mac: str) -> None:
        """It has no address of ours any more."""
        lease = self._by_mac.pop(mac)
        del self._by_address[lease.address]
        del self._order_of(lease)[mac]
        self._returned.append(lease.address)

    def quarantine(self, lease: Lease, now: float) -> None:
        """Somebody else was found to use the address."""
        self.forget(lease.mac)
        self._quarantined[lease.address] = now + QUARANTINE

    def _order_of(self, lease: Lease) -> OrderedDict[str, Lease]:
        return self._bound if lease.bound else self._offered

    def _is_free(self, address: IPv4Address) -> bool:
        given = address in self._by_address or address in self._quarantined
        return address in self and not given and not self._taken(address)

    def _take(self, now: float, lost: list[Lease]) -> IPv4Address | None:
        """Rule 2, without the wish. What ends by it goes into `lost`."""
        self._end(self._offered, now, lost)
        while self._quarantined and next(iter(self._quarantined.values())) <= now:
            self._returned.append(self._quarantined.popitem(last=False)[0])
        if self._next > int(self._last) and now >= self._look_again:
            self._next, self._look_again = int(self._first), now + LOOK_AGAIN
        address = self._unused()
        while address is None and self._end(self._bound, now, lost, most=1):
            address = self._unused()
        return address

    def _end(self, order: OrderedDict[str, Lease], now: float, lost: list[Lease], most: int = MAX_ENDED) -> bool:
        """Forget those whose time is over, the longest over first."""
        ended = 0
        while ended < most and order and not (lease := next(iter(order.values()))).holds(now):
            self.forget(lease.mac)
            lost.append(lease)
            ended += 1
        return ended > 0

    def _unused(self) -> IPv4Address | None:
        while self._next <= int(self._last):
            self._next += 1
            if self._is_free(address := IPv4Address(self._next - 1)):
                return address
        while self._returned:
            if self._is_free(address := self._returned.popleft()):
                return address
        return None
