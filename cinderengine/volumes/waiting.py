# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for volumes that are busy, however many, with at most one list of them a second.

Listing has one list for all who need one; Watch looks at the volumes that are waited for, one by
one while they are few, and else in such lists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cinderengine.errors import EngineError, Unavailable
from cinderengine.volumes.service import Volume, VolumeStatus
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

# Between the beginnings of two list requests, in seconds.
PAUSE_S = 1.0
# So many are asked for one by one, at first so often, and so often later, in seconds.
FEW = 4
FEW_PAUSE_S = 0.25
FEW_LATER_S = 1.0
# After so many looks, some ten seconds, what is waited for takes longer than most.
MANY_LOOKS = 40
# After Cinder did not answer, in seconds.
TROUBLE_PAUSE_S = 5.0

# All volumes, and how many requests they took.
Lister = Callable[[], Awaitable[tuple[Sequence[Volume], int]]]
Getter = Callable[[str], Awaitable[Volume | None]]


class Listing:
    """Lists of all volumes; those who need one at the same time share it."""

    def __init__(self, lister: Lister, tasks: Tasks) -> None:
        self._lister = lister
        self._tasks = tasks
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Sequence[Volume]] | None = None
        self._not_before_s = 0.0

    def take_turn(self) -> bool:
        """Whether a list request may be made at once, by whoever asks; then the next one waits."""
        now_s = asyncio.get_running_loop().time()
        if self._next is not None or now_s < self._not_before_s:
            return False
        self._not_before_s = now_s + PAUSE_S
        return True

    async def fresh(self) -> Sequence[Volume]:
        """A list that is begun after this was called."""
        if self._next is None:
            self._next = self._tasks.begin(self._list(), "list volumes")
        return await asyncio.shield(self._next)

    async def _list(self) -> Sequence[Volume]:
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            try:
                await asyncio.sleep(max(0.0, self._not_before_s - loop.time()))
            finally:
                # Who comes from now on needs another.
                self._next = None
            began_s = loop.time()
            self._not_before_s = began_s + PAUSE_S
            volumes, count = await self._lister()
            self._not_before_s = began_s + PAUSE_S * max(1, count)
            return volumes


class Watch:
    """All volumes that are waited for; it runs while there are any."""

    def __init__(self, get: Getter, listing: Listing, tasks: Tasks, name: str) -> None:
        self._get = get
        self._listing = listing
        self._tasks = tasks
        self._name = name
        self._waiting: dict[str, asyncio.Future[Volume | None]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def settled(self, volume_id: str) -> Volume | None:
        """A volume that is not busy any more, None for one that is gone.

        Raises what asking is refused with; that nobody answers is waited out.
        """
        outcome = self._waiting.get(volume_id)
        if outcome is None:
            outcome = self._waiting[volume_id] = asyncio.get_running_loop().create_future()
        if self._runner is None or self._runner.done():
            self._runner = self._tasks.spawn(self._run(), "watch volumes")
            self._runner.add_done_callback(self._leave)
        return await asyncio.shield(outcome)

    def _leave(self, runner: asyncio.Task[None]) -> None:
        """Nobody waits for what nobody looks at any more."""
        if runner is not self._runner:
            return
        for outcome in self._waiting.values():
            outcome.cancel()
        self._waiting.clear()

    async def _run(self) -> None:
        looks, in_trouble = 0, False
        while self._waiting:
            looks += 1
            waited_for = list(self._waiting)
            try:
                found = await self._look(waited_for)
            except Unavailable as e:
                if not in_trouble:
                    log.warning("volumes of %s are waited for: %s", self._name, e)
                in_trouble = True
                await asyncio.sleep(TROUBLE_PAUSE_S)
                continue
            except EngineError as e:
                self._fail(waited_for, e)
                continue
            in_trouble = False
            for volume_id, volume in found.items():
                if volume is None or volume.status is not VolumeStatus.BUSY:
                    self._settle(volume_id, volume)
            if self._waiting and len(self._waiting) <= FEW:
                await asyncio.sleep(FEW_PAUSE_S if looks < MANY_LOOKS else FEW_LATER_S)

    async def _look(self, ids: Sequence[str]) -> Mapping[str, Volume | None]:
        if len(ids) <= FEW:
            return {volume_id: await self._get(volume_id) for volume_id in ids}
        found = {volume.id: volume for volume in await self._listing.fresh()}
        # One that went from page to page meanwhile is in none of them; of one that failed, the
        # list does not say why.
        return {
            volume_id: volume
            if volume is not None and volume.status is not VolumeStatus.FAILED
            else await self._get(volume_id)
            for volume_id in ids
            for volume in (found.get(volume_id),)
        }

    def _settle(self, volume_id: str, volume: Volume | None) -> None:
        outcome = self._waiting.pop(volume_id)
        if not outcome.done():
            gone = volume is None or volume.status is VolumeStatus.GONE
            outcome.set_result(None if gone else volume)

    def _fail(self, ids: Sequence[str], error: EngineError) -> None:
        for volume_id in ids:
            outcome = self._waiting.pop(volume_id)
            if not outcome.done():
                outcome.set_exception(error)
                # Whoever waited may have gone.
                outcome.exception()
