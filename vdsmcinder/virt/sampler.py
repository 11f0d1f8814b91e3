# SPDX-License-Identifier: GPL-2.0-or-later
"""The background task that hands every running VM its sample.

daemon.py starts and closes it; the registry wakes it when a VM has come up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Callable

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.turns import Pace, Turns
from vdsmcinder.virt import stats
from vdsmcinder.virt.connection import Connection
from vdsmcinder.virt.registry import Registry
from vdsmcinder.virt.vm import VM

log = logging.getLogger(__name__)


class Sampler:
    """Samples all VMs at an interval, and at once when woken.

    on_sample: called with each VM that has a new sample.
    """

    def __init__(
        self,
        connection: Connection,
        registry: Registry,
        interval_s: float,
        on_sample: Callable[[VM], None],
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._interval_s = interval_s
        self._on_sample = on_sample
        self._turns = Turns()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._task = asyncio.create_task(self._run(), name="VM statistics")

    async def close(self) -> None:
        """Stop sampling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Take a sample now: a VM has come up, or its devices changed."""
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._interval_s)
            self._wanted.clear()
            if not self._registry.any_running():
                continue
            try:
                await self._sample()
            except ResourceUnavailable as e:
                log.warning("no statistics this time: %s", e)
            except libvirt.libvirtError as e:
                log.warning("no statistics this time: libvirt says %s", e)

    async def _sample(self) -> None:
        """One round; what it costs at most is the interval, then the next one is due."""
        handle = self._connection.handle
        timeout_s = max(self._interval_s, 1.0)
        found = await self._connection.call(stats.collect, handle, timeout_s=timeout_s)
        taken_ms = stats.now_ms()
        pace = Pace(self._turns)
        for uuid, fields in found:
            await pace.step()
            vm = self._registry.find(uuid)
            if vm is not None and vm.running:
                vm.take_sample(fields, taken_ms)
                self._on_sample(vm)
