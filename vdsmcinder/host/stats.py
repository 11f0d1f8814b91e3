# SPDX-License-Identifier: GPL-2.0-or-later
"""How busy this machine is: sampled in the background, answered from the last sample."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vdsmcinder.host import counters
from vdsmcinder.host.counters import Counters, HugePages, Ksm, Memory, Nic, NodeMemory, Ticks
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CpuShare:
    """What processors did in the interval, in percent; the three add up to 100."""

    user_pct: float
    sys_pct: float
    idle_pct: float


@dataclass(frozen=True)
class HostSample:
    """The machine at one moment, and what it did in the interval before it.

    taken_ms is monotonic, taken_at seconds since the epoch. The interval of the very first sample
    begins when the machine started. Counters of nics are totals, as the kernel counts them.
    """

    taken_ms: int
    taken_at: float
    interval_s: float
    boot_time_s: int  # seconds since the epoch
    elapsed_s: float  # since the daemon started
    load_1min: float
    cpu: CpuShare  # of all processors together
    cores: Mapping[int, CpuShare]  # by the number of the logical processor
    core_node: Mapping[int, int]  # NUMA node of each of them
    daemon_user_pct: float  # of one processor, as is the next
    daemon_sys_pct: float
    memory: Memory
    ksm: Ksm
    ksm_cpu_pct: float  # of one processor
    thp: str  # transparent huge pages: always, madvise or never
    huge_pages: Mapping[int, HugePages]  # by their size in KiB
    nodes: Mapping[int, NodeMemory]
    nics: Mapping[str, Nic]
    free_mib: Mapping[str, int]  # free space by path, in MiB


class HostSampler:
    """Samples the machine every interval_s seconds for as long as it is started.

    read: reads the counters; called in a thread.
    """

    def __init__(
        self,
        tasks: Tasks,
        interval_s: float = 5.0,
        read: Callable[[], Counters] = counters.read,
    ) -> None:
        self._interval_s = interval_s
        self._read = read
        self._started = time.monotonic()
        self._last: Counters | None = None
        self._sample: HostSample | None = None
        self._tasks = tasks

    async def start(self) -> None:
        """Take the first sample and begin sampling."""
        await self._take()
        self._tasks.spawn(self._run(), "sample")

    async def close(self) -> None:
        """Stop sampling; the last sample can still be read."""
        await self._tasks.close()

    def snapshot(self) -> HostSample:
        """The last sample; never waits. start() must have returned."""
        if self._sample is None:
            raise RuntimeError("the host sampler has not been started")
        return self._sample

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._take()
            except Exception:
                log.exception("The host could not be sampled; its last figures stay in force")

    async def _take(self) -> None:
        # Files of sysfs can make their reader wait (a NIC's speed asks its driver).
        now = await asyncio.to_thread(self._read)
        self._sample = between(self._last or counters.at_boot(now), now, self._started)
        self._last = now


def between(first: Counters, last: Counters, started: float) -> HostSample:
    """The sample that two readings of the counters make.

    started: when the daemon started, monotonic seconds.
    """
    interval_s = max(last.monotonic_s - first.monotonic_s, 0.001)
    return HostSample(
        taken_ms=int(last.monotonic_s * 1000),
        taken_at=last.wall_s,
        interval_s=interval_s,
        boot_time_s=last.boot_time_s,
        elapsed_s=max(last.monotonic_s - started, 0.0),
        load_1min=last.load_1min,
        cpu=share(first.cpu, last.cpu),
        cores={n: share(first.cores.get(n, Ticks()), ticks) for n, ticks in last.cores.items()},
        core_node=last.core_node,
        daemon_user_pct=_pct(last.daemon_user_s - first.daemon_user_s, interval_s),
        daemon_sys_pct=_pct(last.daemon_sys_s - first.daemon_sys_s, interval_s),
        memory=last.memory,
        ksm=last.ksm,
        ksm_cpu_pct=_pct(last.ksm.cpu_s - first.ksm.cpu_s, interval_s),
        thp=last.thp,
        huge_pages=last.huge_pages,
        nodes=last.nodes,
        nics=last.nics,
        free_mib=last.free_mib,
    )


def share(first: Ticks, last: Ticks) -> CpuShare:
    """How the time between two readings was spent; all of it idle when no time went by."""
    total = last.total - first.total
    if total <= 0:
        return CpuShare(0.0, 0.0, 100.0)
    user = _pct(last.user - first.user, total)
    sys = min(_pct(last.sys - first.sys, total), 100.0 - user)
    return CpuShare(user, sys, 100.0 - user - sys)


def _pct(part: float, whole: float) -> float:
    return max(0.0, 100.0 * part / whole)
