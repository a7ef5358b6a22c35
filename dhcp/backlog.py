"""The messages that were answered by recognition and wait to be written up. Must hold no clock and no socket."""

from __future__ import annotations

from collections import deque

from dhcp.prepared import Answered

LULL = 0.001  # nothing came in for so long: time for some of them
SLICE = 16  # so many, before the socket is looked at again
PATIENCE = 1.0  # they do not wait longer than so, whatever comes in
MANY = 64
LAST_MINUTE = 0.5  # all of them are to be done in so much time when the process is to end
FIRST_GUESS = 25e-6  # seconds that one of them takes
FEWEST, MOST = 256, 65_536  # that may wait


class Backlog:
    """In the order in which they came in; bounded by how long they would take."""

    def __init__(self) -> None:
        self._waiting: deque[Answered] = deque()
        self._clients: set[bytes] = set()
        self._each = FIRST_GUESS

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, answered: Answered) -> None:
        self._waiting.append(answered)
        self._clients.add(answered.chaddr)

    def __contains__(self, chaddr: bytes) -> bool:
        """Whether a message of that client may wait."""
        return chaddr in self._clients

    def take(self) -> Answered:
        """The oldest."""
        answered = self._waiting.popleft()
        if not self._waiting:
            self._clients.clear()
        return answered

    @property
    def limit(self) -> int:
        return min(max(FEWEST, int(LAST_MINUTE / self._each)), MOST)

    def due(self, now: float, quiet: bool) -> int:
        """How many are to be taken now. `quiet`: nothing came in during the last LULL."""
        if not self._waiting:
            return 0
        if quiet:
            wanted = SLICE
        elif now - self._waiting[0].arrived > PATIENCE:
            wanted = MANY
        else:
            wanted = len(self._waiting) - self.limit
        return min(max(wanted, 0), len(self._waiting))

    def took(self, count: int, seconds: float) -> None:
        """So many of them took that long: the next will take about the same."""
        self._each += (seconds / count - self._each) * min(1.0, count / 512)
