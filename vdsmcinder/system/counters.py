# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters that cost next to nothing to keep: what happened how often, and how long it took.

Times are in nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

# Upper bounds of the histogram's buckets, in seconds; what takes longer goes into one more.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10, 30)
_BOUNDS_NS = tuple(int(bound * 1e9) for bound in BOUNDS_S)

OK = "ok"


class Tally:
    """Outcomes of one kind of work by name, and a histogram of how long all of it took.

    buckets: counts between the bounds, not cumulative; one more than there are bounds.
    """

    __slots__ = ("_failures", "buckets", "total_ns")

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.total_ns = 0

    def add(self, outcome: str, took_ns: int) -> None:
        """Count one piece of work that ended like this after that many nanoseconds."""
        if outcome != OK:
            self._failures[outcome] += 1
        self.buckets[bisect_left(_BOUNDS_NS, took_ns)] += 1
        self.total_ns += took_ns

    @property
    def outcomes(self) -> dict[str, int]:
        """How often the work ended in each of the ways that it has ended in."""
        # Good ends, which are most, are not counted but reckoned: it spares a ping a tenth of a µs.
        good = sum(self.buckets) - sum(self._failures.values())
        return {**({OK: good} if good else {}), **self._failures}


@dataclass
class Deliveries:
    """What the clients of one protocol were sent, and what not because they did not read.

    events_dropped: events that a client which was dropped had left unread, as far as is known.
    """

    events_sent: int = 0
    events_dropped: int = 0
    clients_dropped: int = 0
