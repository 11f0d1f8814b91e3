# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls to one VM's QEMU process: few at once, and none to one that has stopped to answer.

Whether it has stopped is told by calls that overran, and by the statistics that it does not answer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, TypeVar

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.hypervisor.connection import CallOverrun, Connection
from vdsmcinder.tasks import within

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long a call waits for a QEMU process that does not answer to do so after all, in seconds.
STUCK_GRACE_S = 3.0
# Calls that may wait for one QEMU process at once.
CALLS_AT_ONCE = 2


class Monitor:
    """QEMU's monitor, behind libvirt. answers: whether QEMU did the last time it was asked.

    on_back: called when all calls that overran their deadlines have come back.
    """

    def __init__(
        self, vm_id: str, name: str, connection: Connection, on_back: Callable[[], None]
    ) -> None:
        self.answers = True
        self._vm_id = vm_id
        self._name = name
        self._connection = connection
        self._on_back = on_back
        # Few, so that a QEMU that has just begun to hang does not take a thread for each verb.
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._stuck: set[asyncio.Future[Any]] = set()

    @property
    def hangs(self) -> bool:
        """Whether a call waits for QEMU that should have come back."""
        return bool(self._stuck)

    @property
    def responsive(self) -> bool:
        """Whether QEMU answered the last time it was asked, and no call waits for it."""
        return self.answers and not self.hangs

    async def call(self, func: Callable[..., T], *args: Any, timeout_s: float | None = None) -> T:
        """Run func(domain, *args), unless an earlier call still waits for this VM's QEMU.

        timeout_s: deadline in seconds, libvirt.call_timeout_s of the configuration if not given.
        Raises libvirt.libvirtError; ResourceUnavailable (40) while QEMU does not answer, and
        CallOverrun, which is one, when it does not answer this call.
        """
        try:
            wait_s = self._connection.call_timeout_s
            await within(self._calls.acquire(), wait_s, lambda _: self._calls.release())
        except asyncio.TimeoutError:
            raise self._does_not_answer() from None
        try:
            if self.hangs:
                await asyncio.wait(set(self._stuck), timeout=STUCK_GRACE_S)
                if self.hangs:
                    raise self._does_not_answer()
            return await self._connection.on_domain(self._vm_id, func, *args, timeout_s=timeout_s)
        except CallOverrun as e:
            self.hang_until(e.finished)
            raise CallOverrun(f"VM {self._vm_id}: {e}", e.finished) from e
        finally:
            self._calls.release()

    def _does_not_answer(self) -> ResourceUnavailable:
        return ResourceUnavailable(
            f"VM {self._vm_id}'s QEMU process does not answer its monitor: an earlier call still "
            "waits for it; look at the process, VM.destroy ends it"
        )

    def hang_until(self, finished: asyncio.Future[Any]) -> None:
        """A call waits for this VM's QEMU, which does not answer; finished: when it does."""
        if not self.hangs:
            log.warning("the QEMU process of %s does not answer its monitor", self._name)
        self._stuck.add(finished)
        finished.add_done_callback(self._came_back)

    def _came_back(self, call: asyncio.Future[Any]) -> None:
        self._stuck.discard(call)
        if not self.hangs:
            self._on_back()
