# SPDX-License-Identifier: GPL-2.0-or-later
"""The requests of one connection whose verbs take time: a few run at once, the others wait in line.

So no client fills the thread pool and the memory with what it asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any, Callable, NamedTuple

from vdsmcinder.tasks import Tasks

# More than an engine has under way on one host, and few enough that those of another connection
# do not wait long for a thread.
RUNNING_AT_ONCE = 32
# Bodies of requests that are under way, in bytes, after which no more are taken off the wire. What
# they become in memory may be twenty times as large.
HELD_BYTES = 1024 * 1024

Answer = Coroutine[Any, Any, "bytes | None"]


class _Entry(NamedTuple):
    answer: Answer
    deliver: Callable[[bytes | None], None]
    size: int


class Lane:
    """Runs answers as tasks of `requests`, which goes on with them when the connection is gone.

    on_room: called when the lane was full and no longer is. held_bytes: of the bodies under way.
    """

    def __init__(self, requests: Tasks, on_room: Callable[[], None]) -> None:
        self.length = 0  # requests whose answer is not there yet
        self._requests = requests
        self._on_room = on_room
        self.held_bytes = 0
        self._running = 0
        self._waiting: deque[_Entry] = deque()

    @property
    def full(self) -> bool:
        """Whether so much is held that no more should be added; what is added is taken anyway."""
        return self.held_bytes > HELD_BYTES

    def add(self, answer: Answer, deliver: Callable[[bytes | None], None], size: int) -> None:
        """Have deliver called with what answer gives, once it has run; size: of its body, bytes."""
        self.length += 1
        self.held_bytes += size
        self._waiting.append(_Entry(answer, deliver, size))
        self._start_next()

    def close(self) -> None:
        """Forget what waits: an answer that can reach nobody must not act. What runs goes on."""
        for entry in self._waiting:
            entry.answer.close()
        self._waiting.clear()

    def _start_next(self) -> None:
        if self._waiting and self._running < RUNNING_AT_ONCE:
            self._running += 1
            self._requests.spawn(self._run(self._waiting.popleft()), "request")

    async def _run(self, entry: _Entry) -> None:
        try:
            entry.deliver(await entry.answer)
        finally:
            was_full = self.full
            self._running -= 1
            self.length -= 1
            self.held_bytes -= entry.size
            self._start_next()
            if was_full and not self.full:
                self._on_room()
