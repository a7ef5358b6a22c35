"""dhcp/leases.py: who gets which address of the pool, for how long, and who loses it."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

import dhcp.leases
from dhcp.leases import LOOK_AGAIN, OFFER_HOLD, QUARANTINE, Lease, Pool

FIRST, SECOND, THIRD = (IPv4Address(f"172.30.4.{n}") for n in (100, 101, 102))
A, B, C, D = (f"02:00:00:00:00:0{n}" for n in range(4))


class Bench:
    """A pool of three addresses, and the addresses that hosts.csv has of them."""

    def __init__(self) -> None:
        self.taken: set[IPv4Address] = set()
        self.pool = Pool(FIRST, THIRD, self.taken.__contains__)

    def give(self, mac: str, now: float, wanted: IPv4Address | None = None) -> IPv4Address | None:
        """DISCOVER and REQUEST at once."""
        lease, _ = self.pool.allot(mac, now, wanted)
        if lease is not None:
            self.pool.bind(lease, now, 600)
        return None if lease is None else lease.address

    def lost(self, mac: str, now: float) -> list[str]:
        return [lease.mac for lease in self.pool.allot(mac, now)[1]]


def test_each_new_mac_gets_a_new_address_until_there_is_none() -> None:
    it = Bench()
    assert [it.give(mac, 0) for mac in (A, B, C, D)] == [FIRST, SECOND, THIRD, None]
    assert [it.give(mac, 1) for mac in (B, A)] == [SECOND, FIRST]


def test_a_wish_is_granted_where_it_can_be() -> None:
    it = Bench()
    assert it.give(A, 0, THIRD) == THIRD
    assert it.give(B, 0, THIRD) == FIRST
    assert it.give(B, 0, SECOND) == FIRST  # it keeps what it has
    assert it.give(C, 0, IPv4Address("172.30.4.1")) == SECOND
    assert it.give(D, 0, SECOND) is None


def test_an_address_comes_back_the_longest_unused_first_and_its_mac_keeps_it_till_then() -> None:
    it = Bench()
    for now, mac in ((0, A), (1, B), (2, C), (300, A)):
        it.give(mac, now)
    assert it.lost(D, 600) == []
    assert it.give(A, 10_000) == FIRST  # its lease ran out long ago
    assert it.lost(D, 10_000) == [B]
    assert it.pool.of(D) == Lease(D, SECOND, 10_000 + OFFER_HOLD)
    assert it.pool.of(B) is None
    assert it.give(B, 10_000) == THIRD
    assert it.give(C, 10_000) is None


def test_an_offer_that_is_not_taken_up_is_over_soon() -> None:
    it = Bench()
    for mac in (A, B, C):
        it.pool.allot(mac, 0)
    assert it.give(D, OFFER_HOLD - 1) is None
    assert it.lost(D, OFFER_HOLD) == [A, B, C]
    assert it.pool.of(D) == Lease(D, FIRST, 2 * OFFER_HOLD)


def test_an_address_is_to_be_probed_again_after_its_lease_ran_out() -> None:
    it = Bench()
    it.give(A, 0)
    lease = it.pool.of(A)
    assert lease is not None
    lease.proven = True
    assert it.pool.allot(A, 599)[0] is lease
    assert (lease.proven, lease.expires) == (True, 600)
    assert it.pool.allot(A, 600)[0] is lease
    assert (lease.proven, lease.expires, lease.bound) == (False, 600 + OFFER_HOLD, True)


def test_a_released_address_is_the_first_to_be_given_again() -> None:
    it = Bench()
    for now, mac in enumerate((A, B, C)):
        it.give(mac, now)
    lease = it.pool.of(C)
    assert lease is not None
    it.pool.release(lease, 10)
    assert lease.expires == 10
    assert it.lost(D, 10) == [C]


def test_an_address_that_somebody_else_uses_rests() -> None:
    it = Bench()
    for mac in (A, B):
        it.give(mac, 0)
    lease = it.pool.of(A)
    assert lease is not None
    it.pool.quarantine(lease, 0)
    assert it.pool.of(A) is None
    assert it.give(A, 1, FIRST) == THIRD
    assert it.give(C, 2) is None
    assert it.give(C, QUARANTINE) == FIRST


def test_an_address_in_hosts_csv_leaves_the_pool() -> None:
    it = Bench()
    it.give(A, 0)
    it.taken.update((FIRST, SECOND))
    assert it.pool.of(A) is None
    assert it.lost(A, 1) == [A]
    assert it.give(A, 1) == THIRD
    assert it.give(B, 1) is None
    # What leaves hosts.csv is found again, but it is not looked for at each DISCOVER.
    it.taken.clear()
    assert it.give(B, LOOK_AGAIN) is None
    assert it.give(B, 1 + LOOK_AGAIN) == FIRST


def test_an_ended_lease_in_hosts_csv_is_passed_over() -> None:
    it = Bench()
    for now, mac in enumerate((A, B, C)):
        it.give(mac, now)
    it.taken.add(FIRST)
    assert it.lost(D, 601) == [A, B]
    assert it.pool.of(D) == Lease(D, SECOND, 601 + OFFER_HOLD)


def test_leases_from_before_a_restart() -> None:
    it = Bench()
    it.taken.add(SECOND)
    assert it.pool.restore(A, THIRD, -5)
    assert not it.pool.restore(A, FIRST, 5)
    assert not it.pool.restore(B, THIRD, 5)
    assert not it.pool.restore(B, SECOND, 5)
    assert not it.pool.restore(B, IPv4Address("172.30.4.9"), 5)
    assert it.give(A, 0) == THIRD
    assert THIRD in it.pool
    assert IPv4Address("172.30.4.103") not in it.pool


events = st.lists(
    st.tuples(
        st.sampled_from(["allot", "bind", "release", "quarantine", "forget", "take", "leave"]),
        st.integers(0, 6),
        st.integers(0, 4),
        st.sampled_from([0.0, 1.0, 30.0, 61.0, 700.0]),
    ),
    max_size=60,
)


def act(pool: Pool, what: str, lease: Lease, now: float) -> None:
    match what:
        case "bind":
            pool.bind(lease, now, 600)
        case "release":
            pool.release(lease, now)
        case "quarantine":
            pool.quarantine(lease, now)
        case "forget":
            pool.forget(lease.mac)


@given(events)
@settings(max_examples=400)
def test_no_two_macs_have_one_address_whatever_happens(happened: list[tuple[str, int, int, float]]) -> None:
    taken: set[IPv4Address] = set()
    pool, now, has = Pool(FIRST, IPv4Address(int(FIRST) + 4), taken.__contains__), 0.0, dict[str, IPv4Address]()
    for what, who, where, pause in happened:
        now += pause
        mac, address = f"02:00:00:00:00:{who:02x}", IPv4Address(int(FIRST) + where)
        lease = pool.of(mac)
        if what == "allot":
            new, lost = pool.allot(mac, now, address)
            for each in lost:
                assert has.pop(each.mac) == each.address
                assert not each.holds(now) or each.address in taken
            if new is None:
                assert mac not in has
            else:
                assert has.setdefault(mac, new.address) == new.address
                assert new.address not in taken
        elif what == "take":
            taken.add(address)
        elif what == "leave":
            taken.discard(address)
        elif lease is not None:
            if what in ("quarantine", "forget"):
                del has[mac]
            act(pool, what, lease, now)
        assert len(set(has.values())) == len(has)
        for other, where_it_is in has.items():
            assert (found := pool.of(other)) is None or found.address == where_it_is


def test_a_flood_of_made_up_macs_ends_in_pieces() -> None:
    pool = Pool(IPv4Address("10.0.0.1"), IPv4Address("10.0.3.255"), lambda _: False)
    for n in range(1023):
        pool.allot(f"mac {n}", 0)
    lease, lost = pool.allot("one more", OFFER_HOLD)
    assert lease is not None
    assert len(lost) == dhcp.leases.MAX_ENDED
