"""A lossy wire in virtual time, between two pure endpoints: thousands of transfers in seconds, and no test sleeps.

Drops, doubles, delays, and by delays of different lengths reorders. Knows no protocol: an endpoint is anything that
takes a datagram or a tick with the time, and returns datagrams.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Protocol


class Endpoint(Protocol):
    """`deadline` is when `tick` wants to be called; infinity: not at all. At 0 the endpoint speaks first."""

    deadline: float

    def receive(self, datagram: bytes, now: float) -> list[bytes]: ...

    def tick(self, now: float) -> list[bytes]: ...


@dataclass(frozen=True)
class Weather:
    """Chances are 0..1, of each datagram either way; one takes between `fastest` and `slowest` seconds."""

    loss: float = 0.0
    double: float = 0.0
    fastest: float = 0.001
    slowest: float = 0.001


@dataclass
class Story:
    """What happened. `log` holds (time sent, sender 0 or 1, datagram) of all that was sent, lost ones too."""

    time: float = 0.0
    lost: int = 0
    doubled: int = 0
    log: list[tuple[float, int, bytes]] = field(default_factory=list)

    def sent_by(self, side: int) -> list[bytes]:
        return [datagram for _when, sender, datagram in self.log if sender == side]


def converse(
    left: Endpoint, right: Endpoint, weather: Weather, seed: int, longest: float = 3600.0, most: int = 1_000_000
) -> Story:
    """Let the two talk until neither waits for anything and the wire is empty. The same seed gives the same story.

    Raises AssertionError if that is not so after `longest` virtual seconds or `most` datagrams.
    """
    ends = (left, right)
    wire = _Wire(weather, random.Random(seed))
    story = wire.story
    while True:
        arrival = wire.flying[0][0] if wire.flying else math.inf
        following = max(story.time, min(arrival, left.deadline, right.deadline))
        if math.isinf(following):
            return story
        story.time = following
        assert story.time <= longest, f"not at an end after {longest} virtual seconds"
        assert len(story.log) <= most, f"not at an end after {most} datagrams"
        if arrival <= story.time:
            _arrival, _order, receiver, datagram = heapq.heappop(wire.flying)
            wire.send(receiver, ends[receiver].receive(datagram, story.time))
        for side, end in enumerate(ends):
            if end.deadline <= story.time:
                wire.send(side, end.tick(story.time))


class _Wire:
    """The datagrams on their way: (arrival, order, receiver, datagram)."""

    def __init__(self, weather: Weather, chance: random.Random) -> None:
        self.story = Story()
        self.flying: list[tuple[float, int, int, bytes]] = []
        self._weather = weather
        self._chance = chance
        self._order = itertools.count()

    def send(self, sender: int, datagrams: list[bytes]) -> None:
        weather, story = self._weather, self.story
        for datagram in datagrams:
            story.log.append((story.time, sender, datagram))
            copies = 1
            if self._chance.random() < weather.loss:
                copies, story.lost = 0, story.lost + 1
            elif self._chance.random() < weather.double:
                copies, story.doubled = 2, story.doubled + 1
            for _ in range(copies):
                arrival = story.time + self._chance.uniform(weather.fastest, weather.slowest)
                heapq.heappush(self.flying, (arrival, next(self._order), 1 - sender, datagram))
