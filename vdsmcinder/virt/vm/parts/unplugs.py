# SPDX-License-Identifier: GPL-2.0-or-later
"""The devices of one VM that are being unplugged, and who waits for the guest to let go of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from vdsmcinder.errors import UnsupportedOperation, VMIsDown


class Unplugs:
    """At most one unplug of each device, by its alias."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @contextlib.contextmanager
    def expect(self, alias: str) -> Iterator[asyncio.Future[None]]:
        """What is done when the guest has let go of the device; begun before it is asked to.

        It raises UnsupportedOperation (75) if the guest refuses, VMIsDown (6) if the VM ends.
        """
        removed = self._waiting[alias] = asyncio.get_running_loop().create_future()
        # Who waits may have been cancelled, or refused, before the guest answers.
        removed.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            yield removed
        finally:
            removed.cancel()
            del self._waiting[alias]

    def removed(self, alias: str) -> bool:
        """The guest has let go of the device; False if nobody here waits for that."""
        waiting = self._open(alias)
        if waiting is not None:
            waiting.set_result(None)
        return waiting is not None

    def kept(self, alias: str) -> None:
        """The guest refuses to let go of the device."""
        waiting = self._open(alias)
        if waiting is not None:
            waiting.set_exception(UnsupportedOperation("the guest refused to let go of it"))

    def over(self, why: str) -> None:
        """No guest is there any more that could let go of anything; why: that, in a sentence."""
        for alias in self._waiting:
            waiting = self._open(alias)
            if waiting is not None:
                waiting.set_exception(VMIsDown(why))

    def _open(self, alias: str) -> asyncio.Future[None] | None:
        waiting = self._waiting.get(alias)
        return None if waiting is None or waiting.done() else waiting
