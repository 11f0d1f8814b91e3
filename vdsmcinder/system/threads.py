# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads for what has no asynchronous form: files, sysfs, and, by themselves, names of hosts.

Those for files are the event loop's default executor, which asyncio.to_thread uses.
Python waits for each of them when the process ends; this tells whether there is one to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A thread pool that knows what is under way in it.

    name: of its threads. most: how many there may be; None for as many as Python thinks fit.
    """

    def __init__(self, name: str = "files", most: int | None = None) -> None:
        super().__init__(most, thread_name_prefix=name)
        self._under_way: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As any executor's."""
        future = super().submit(fn, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return any(not future.done() for future in list(self._under_way))

    async def idle(self) -> None:
        """Return when nothing is under way; what has not begun does not begin any more."""
        for future in list(self._under_way):
            future.cancel()
        under_way = [asyncio.wrap_future(future) for future in list(self._under_way)]
        await asyncio.gather(*under_way, return_exceptions=True)
