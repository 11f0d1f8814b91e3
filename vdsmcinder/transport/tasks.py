# SPDX-License-Identifier: GPL-2.0-or-later
"""Owners of tasks, so that every task ends with the listener at the latest.

transport/listener.py keeps one for the clients that it greets and one for the requests under way,
which outlive the connection that they came in on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Work:
    """A set of tasks under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """How many tasks are under way."""
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task of ours; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, grace_s: float) -> None:
        """Wait at most grace_s for what is under way, then cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        if self._tasks:
            log.warning(
                "%d requests were still under way after %.0f s; they are cancelled",
                len(self._tasks),
                grace_s,
            )
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task ended unexpectedly", exc_info=task.exception())
