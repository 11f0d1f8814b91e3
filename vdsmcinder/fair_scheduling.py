# SPDX-License-Identifier: GPL-2.0-or-later
"""The event loop's time, shared out in turns: who has much to do does not keep others waiting.

For connections that have sent more than one go can answer, for long batches, for samples of many
VMs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from typing import Callable

# How long one turn may last, in seconds: about what a client with one request in flight waits
# anyway, so that whoever else is busy can at most double it.
TURN_S = 100e-6


class Turns:
    """One turn is given in each pass of the loop, in the order in which turns were asked for.

    In each pass, what came in meanwhile is served before the turn begins.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def ask(self, work: Callable[[], None]) -> None:
        """Have work called in its turn; it ends by turn_end() and asks again if there is more."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            self._schedule()

    async def next(self) -> None:
        """Return when it is the caller's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ask(functools.partial(_begin, mine))
        await mine

    def _schedule(self) -> None:
        # A timer that is due already: the loop appends those to a pass behind what the poll of
        # that pass found, and call_soon() in front of it.
        asyncio.get_running_loop().call_later(0, self._give)

    def _give(self) -> None:
        work = self._waiting[0]
        try:
            work()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._schedule()


class Pace:
    """For coroutines that do a piece of work many times: has them wait for turns as they go."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._end = turn_end()

    async def step(self) -> None:
        """Return at once while it is the caller's turn, else when it is again."""
        if time.perf_counter() > self._end:
            await self._turns.next()
            self._end = turn_end()


def _begin(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # whoever asked may have been cancelled
        turn.set_result(None)


def turn_end() -> float:
    """When a turn that begins now has to end, by time.perf_counter()."""
    return time.perf_counter() + TURN_S
