# SPDX-License-Identifier: GPL-2.0-or-later
"""The background task that hands every running VM its sample.

It waits no longer when a VM has come up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.fair_scheduling import Pace, Turns
from vdsmcinder.hypervisor.connection import CallOverrun, Connection
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.virt.domain import stats
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

Found = list[tuple[str, dict[str, Any], int]]

# How long one VM may keep all others waiting for their statistics, in seconds, and what more each
# of many may take: a monitor answers within milliseconds.
PATIENCE_S = 0.5
PATIENCE_PER_VM_S = 0.02
# VMs that may be looked at by themselves at once.
LANES = 6
# Each call that hangs takes one of the threads of libvirtd, which has 20 (max_workers): the others
# are left to those who do not ask for statistics.
MOST_STUCK = 12


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
        tasks: Tasks,
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._interval_s = interval_s
        self._on_sample = on_sample
        self._collector = self._new_collector()
        self._turns = Turns()
        self._wanted = asyncio.Event()
        self._tasks = tasks

    def start(self) -> None:
        """Begin to sample."""
        self._tasks.spawn(self._run(), "sample")

    async def close(self) -> None:
        """Stop sampling."""
        await self._tasks.close()
        # What it left open goes with the process; a call may be under way on it.
        self._collector.abandon()

    def wake(self) -> None:
        """Take a sample now: a VM has come up, or its devices changed."""
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._wanted.wait(), self._interval_s)
            self._wanted.clear()
            if not self._registry.any_running():
                continue
            try:
                await self._sample()
            except ResourceUnavailable as e:
                log.warning("no statistics this time: %s", e)
            except libvirt.libvirtError as e:
                log.warning("no statistics this time: libvirt says %s", e)
            except Exception:
                # Such as no memory left: the next round may find some.
                log.exception("no statistics this time")

    async def _sample(self) -> None:
        """One round: all VMs at once and, if one of them keeps the others waiting, each by itself.

        A VM that does not answer is left out of the rounds that follow, until it does.
        """
        vms = [vm for vm in self._registry.vms() if vm.running and not vm.monitor.hangs]
        if not vms or self._connection.stuck_calls >= MOST_STUCK:
            return
        patience_s = PATIENCE_S + len(vms) * PATIENCE_PER_VM_S
        try:
            await self._take(patience_s, self._collector.collect, [vm.id for vm in vms])
        except CallOverrun as e:
            self._collector.abandon()
            self._collector = self._new_collector()
            await self._find_hung(vms, e)

    async def _find_hung(self, vms: Sequence[VM], overrun: CallOverrun) -> None:
        """Sample each VM by itself, and mark those that hang."""
        lanes = asyncio.Semaphore(LANES)
        silent_ms = dict(zip(vms, await asyncio.gather(*(self._look(vm, lanes) for vm in vms))))
        # The first call waits for the one that has been silent for longest.
        longest = max(silent_ms, key=silent_ms.__getitem__)
        if silent_ms[longest] >= stats.SILENT_MS and not overrun.finished.done():
            longest.monitor.hang_until(overrun.finished)

    async def _look(self, vm: VM, lanes: asyncio.Semaphore) -> int:
        """Sample one VM; for how long something else has been waiting for it, in ms."""
        async with lanes:
            if self._connection.stuck_calls >= MOST_STUCK:
                return 0
            try:
                return await self._take(PATIENCE_S, self._new_collector().collect_once, vm.id)
            except CallOverrun as e:
                vm.monitor.hang_until(e.finished)
            except (ResourceUnavailable, libvirt.libvirtError) as e:
                log.warning("no statistics of %s this time: %s", vm.name, e)
            return 0

    async def _take(
        self, timeout_s: float, collect: Callable[..., Found], wanted: list[str] | str
    ) -> int:
        """Have VMs take their samples; the longest time for which one has not answered, in ms."""
        found = await self._connection.call(collect, wanted, timeout_s=timeout_s)
        taken_ms = stats.now_ms()
        pace = Pace(self._turns)
        for uuid, fields, silent_ms in found:
            await pace.step()
            vm = self._registry.find(uuid)
            if vm is not None and vm.running:
                self._hand(vm, fields, taken_ms, silent_ms < stats.SILENT_MS)
        return max((silent_ms for _, _, silent_ms in found), default=0)

    def _hand(self, vm: VM, fields: Mapping[str, Any], taken_ms: int, answers: bool) -> None:
        try:
            vm.take_sample(fields, taken_ms, answers)
            self._on_sample(vm)
        except Exception:
            # What is odd about one keeps nobody from the samples of the others.
            log.exception("no statistics of %s this time", vm.name)

    def _new_collector(self) -> stats.Collector:
        return stats.Collector(self._connection.open_another)
