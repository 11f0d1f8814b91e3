# SPDX-License-Identifier: GPL-2.0-or-later
"""Owners of tasks: all that runs on its own is named, its failure is logged, and it can be ended.

The daemon has one Tasks, of which each part gets a group by its constructor; closing it leaves
nothing running. What is done at once within a function is a group of that function's, in `async
with`. No other module creates a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any, Callable, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """Tasks under way and groups of them, which end with it.

    name: what they are for, at the head of each task's own name.
    """

    def __init__(self, name: str, owner: Tasks | None = None) -> None:
        self._name = name
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()
        self._groups: set[Tasks] = set()
        self._ended = False

    @property
    def count(self) -> int:
        """How many tasks are under way, those of its groups included."""
        return len(self._all())

    def group(self, name: str) -> Tasks:
        """Tasks that can be ended together, and end with these at the latest."""
        group = Tasks(name, self)
        if self._ended:
            group.end()
        else:
            self._groups.add(group)
        return group

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Have work done that nobody waits for: what it raises is logged.

        name: the coroutine's own if not given. After end() it is cancelled before it begins.
        """
        task = self.begin(work, name)
        task.add_done_callback(_log_failure)
        return task

    def begin(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Begin work whose outcome the caller awaits: what it raises is the caller's to tell."""
        full_name = f"{self._name}: {name or getattr(work, '__name__', 'work').lstrip('_')}"
        task = asyncio.get_running_loop().create_task(work, name=full_name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        if self._ended:
            task.cancel()
        return task

    def end(self) -> None:
        """Cancel all tasks but the one that calls this, and let no other begin; does not wait."""
        self._ended = True
        for group in list(self._groups):
            group.end()
        for task in self._others():
            task.cancel()
        self._leave_owner()

    async def close(self) -> None:
        """End all tasks, and return when none is left but the one that calls this."""
        self.end()
        while under_way := self._others():
            await asyncio.wait(under_way)

    async def finish(self, grace_s: float) -> None:
        """Give what is under way so many seconds to come to its end, then close."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + grace_s
        while (under_way := self._others()) and (left_s := until_s - loop.time()) > 0:
            await asyncio.wait(under_way, timeout=left_s)
        if under_way:
            log.warning(
                "%d %s were still under way after %.0f s; they are cancelled",
                len(under_way),
                self._name,
                grace_s,
            )
        await self.close()

    async def __aenter__(self) -> Tasks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _all(self) -> set[asyncio.Task[Any]]:
        return self._tasks.union(*(group._all() for group in self._groups))

    def _others(self) -> set[asyncio.Task[Any]]:
        """All but the one that asks, which cannot wait for itself."""
        current = asyncio.current_task()
        return {task for task in self._all() if task is not current}

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever was to take it may be gone, and asyncio would log what nobody takes.
            task.exception()
        self._leave_owner()

    def _leave_owner(self) -> None:
        """Once it is over, its owner need not know it any more."""
        if self._owner is not None and self._ended and not (self._tasks or self._groups):
            self._owner._groups.discard(self)
            self._owner._leave_owner()


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s: it ended unexpectedly", task.get_name(), exc_info=task.exception())


async def within(
    work: Awaitable[T], timeout_s: float | None, undo: Callable[[T], object] | None = None
) -> T:
    """What work comes to; asyncio.TimeoutError, and work is cancelled, after so many seconds.

    asyncio.wait_for returns before Python 3.12 as if it was not cancelled when work is done in the
    same moment, and a loop around it goes on for ever. undo: called with what work came to if the
    caller is cancelled and it is nobody's.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                raise asyncio.TimeoutError
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(lambda over: _not_taken(over, undo))
        await asyncio.wait({task})
        raise
    return task.result()


def _not_taken(task: asyncio.Future[T], undo: Callable[[T], object] | None) -> None:
    # exception() has asyncio not log that nobody takes it.
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())


async def ends_within(work: Coroutine[Any, Any, None], timeout_s: float) -> bool:
    """Do work, for the process's end: False if it has not come to its own end by then.

    It goes on then: unlike wait_for, this does not wait for what does not heed its cancellation.
    """
    task = asyncio.get_running_loop().create_task(work)
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if done:
        await task
    return bool(done)
