"""A bridge whose two ports have Linux's own netem (sch_netem): a bad network between two parts of the tests' wire.

Many small kernels, those of virtual machines and containers, are built without netem. Debian's has it, so the bridge
is a guest in QEMU with two network cards.
"""

from __future__ import annotations

import contextlib
import re
from types import TracebackType

from tests.peers.guests import NETEM
from tests.peers.machines import command, linux
from tests.peers.netns import Network

_BRIDGE = """ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip link set eth0 master br0 up
ip link set eth1 master br0 up
ip link set br0 up"""


class NetemBridge:
    """Joins two networks. What a port sends passes its queueing discipline, so both directions have one."""

    def __init__(self, near: Network, far: Network) -> None:
        for net in (near, far):
            net.host("netem")
        cables = [(net.namespace("netem"), "eth0") for net in (near, far)]
        self._machine = linux(NETEM, cables, "52:54:00:00:00:01")

    def __enter__(self) -> NetemBridge:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._machine)
            self._machine.expect("GUEST-READY", 90)
            for line in _BRIDGE.splitlines():
                command(self._machine, f"/sbin/{line}")
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._machine.__exit__(kind, error, tb)

    def set(self, words: str) -> None:
        """Give both directions these faults, in netem's own words; none: a good network. Counts from 0 again."""
        for port in ("eth0", "eth1"):
            # Busybox has a tc of its own, which knows no netem.
            command(self._machine, f"/sbin/tc qdisc replace dev {port} root pfifo")
            if words:
                command(self._machine, f"/sbin/tc qdisc replace dev {port} root netem limit 10000 {words}")

    def counts(self) -> list[tuple[int, int]]:
        """Per direction: packets sent and dropped since `set`."""
        said = command(self._machine, "/sbin/tc -s qdisc show dev eth0; /sbin/tc -s qdisc show dev eth1")
        return [(int(sent), int(lost)) for sent, lost in re.findall(r"bytes (\d+) pkt \(dropped (\d+)", said)]
