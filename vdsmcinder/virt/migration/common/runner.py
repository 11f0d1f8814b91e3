# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a state machine: brings it events, one after the other, and has its actions carried out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Callable

from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.migration.common.table import Due, IllegalEvent, Machine, Note, Wake

log = logging.getLogger(__name__)

AtOnce = Mapping[type, Callable[[Any], None]]
Work = Mapping[type, Callable[[Any], Coroutine[Any, Any, object]]]


class Runner:
    """All work of one machine, which ends with run().

    at_once: by the type of an action, what carries it out. work: the same for what takes time; it
    gives the event to which that led, or None. What is under way already is not begun again, and
    what the machine's last state wanted ends with that state, except for types in lasting.
    failed: the event for work that raised what it should not, by the action and the error.
    """

    def __init__(
        self,
        machine: Machine,
        at_once: AtOnce,
        work: Work,
        *,
        lasting: Collection[type],
        failed: Callable[[Any, Exception], object],
        tasks: Tasks,
    ) -> None:
        self._machine = machine
        self._at_once: AtOnce = {Note: _note, Wake: self._wake, **at_once}
        self._work = work
        self._lasting = tuple(lasting)
        self._failed = failed
        self._events: asyncio.Queue[tuple[Any, float, int | None]] = asyncio.Queue()
        self._tasks = tasks
        self._under_way: dict[object, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._states = 0

    def feed(self, event: object) -> None:
        """Have the machine told of something that happens now."""
        self._put(event, None)

    def _put(self, event: object, of_state: int | None) -> None:
        self._events.put_nowait((event, time.monotonic(), of_state))

    async def run(self) -> None:
        """Return when the machine is over; what is under way ends then, and if it is cancelled."""
        try:
            while not self._machine.over:
                event, at_s, of_state = await self._events.get()
                # What a state wanted to know is of no use to the next.
                if of_state in (None, self._states):
                    self._take_in(event, at_s)
        finally:
            self._cancel_timer()
            await self._tasks.close()

    def unread(self) -> list[object]:
        """The events that the machine has not been told of yet; it will not be."""
        events = []
        while not self._events.empty():
            events.append(self._events.get_nowait()[0])
        return events

    def _take_in(self, event: object, at_s: float) -> None:
        state = self._machine.state
        try:
            actions = self._machine.receive(event, at_s)
        except IllegalEvent as e:
            log.error("an event that should not be: %s", e)
            return
        if self._machine.state is not state:
            self._states += 1
            self._cancel_timer()
            for action in [a for a in self._under_way if not isinstance(a, self._lasting)]:
                self._under_way.pop(action).cancel()
        for action in actions:
            self._begin(action)

    def _begin(self, action: object) -> None:
        do_now = self._at_once.get(type(action))
        if do_now is not None:
            try:
                do_now(action)
            except Exception:
                log.exception("%s failed", action)
        elif action not in self._under_way:
            of_state = None if isinstance(action, self._lasting) else self._states
            work, name = self._carry_out(action, of_state), type(action).__name__
            self._under_way[action] = self._tasks.spawn(work, name)

    async def _carry_out(self, action: object, of_state: int | None) -> None:
        try:
            event = await self._work[type(action)](action)
        except Exception as e:
            log.exception("%s failed", action)
            event = self._failed(action, e)
        if self._under_way.get(action) is asyncio.current_task():
            del self._under_way[action]
        if event is not None:
            self._put(event, of_state)

    def _wake(self, wake: Wake) -> None:
        self._cancel_timer()
        later = asyncio.get_running_loop().call_later
        self._timer = later(wake.after_s, self._put, Due(), self._states)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _note(note: Note) -> None:
    log.log(note.level, "%s", note.text)
