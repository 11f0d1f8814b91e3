# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples of all VMs' statistics, taken in the background from libvirt's bulk statistics.

Reads answer from a VM's last sample and never wait for libvirt. Field names of the bulk statistics
follow https://libvirt.org/html/libvirt-libvirt-domain.html#virConnectGetAllDomainStats.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import libvirt

BULK_STATS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
# NOWAIT: a VM whose monitor is busy gives what libvirt knows by itself and delays nobody.
BULK_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
# A monitor that has not answered a command for as long does not answer.
SILENT_MS = 500


class DiskSample(NamedTuple):
    """One disk: totals since the VM started, and rates and mean latencies of the last interval.

    taken_ms: monotonic clock, 0 for never. While QEMU does not tell, the last totals stand, and no
    rates: the next ones are of the whole time in between.
    """

    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0
    flush_ops: int = 0
    read_time_ns: int = 0
    write_time_ns: int = 0
    flush_time_ns: int = 0
    capacity: int = 0
    allocation: int = 0
    read_rate: float = 0.0
    write_rate: float = 0.0
    read_latency_ns: int = 0
    write_latency_ns: int = 0
    flush_latency_ns: int = 0
    taken_ms: int = 0


class NicSample(NamedTuple):
    """One network interface: totals since the VM started, bytes and packets, as of taken_ms."""

    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    taken_ms: int


class MemorySample(NamedTuple):
    """What the guest's balloon driver tells of its memory, in KiB; faults are counts."""

    total: int
    unused: int
    available: int
    cached: int
    swap_in: int
    swap_out: int
    major_faults: int
    minor_faults: int


# libvirt's names, in the order of DiskSample, NicSample and MemorySample.
_DISK = (
    *("rd.bytes", "wr.bytes", "rd.reqs", "wr.reqs", "fl.reqs"),
    *("rd.times", "wr.times", "fl.times", "capacity", "allocation"),
)
_NIC = ("rx.bytes", "tx.bytes", "rx.errs", "tx.errs", "rx.drop", "tx.drop")
_MEMORY = tuple(
    f"balloon.{field}"
    for field in (
        *("available", "unused", "usable", "disk_caches"),
        *("swap_in", "swap_out", "major_fault", "minor_fault"),
    )
)


@dataclass(frozen=True)
class VmSample:
    """One VM at one moment.

    taken_ms: monotonic clock. interval_s: time since the sample before, 0 in the first. What
    libvirt did not tell this time is as it was in the sample before. cpu_taken_ms: when it told
    the processors' times.
    cpu_time_ns, cpu_system_ns: totals since the VM started, the kernel's share included and alone.
    cpu_user_pct, cpu_sys_pct: in the interval, without and in the kernel, in % of one core.
    """

    taken_ms: int
    interval_s: float
    cpu_time_ns: int
    cpu_system_ns: int
    cpu_user_pct: float
    cpu_sys_pct: float
    vcpu_count: int
    balloon_current_kib: int
    balloon_max_kib: int
    memory: MemorySample | None
    disks: Mapping[str, DiskSample]
    nics: Mapping[str, NicSample]
    cpu_taken_ms: int = 0


_NOTHING = VmSample(0, 0.0, 0, 0, 0.0, 0.0, 0, 0, 0, None, {}, {})


class Collector:
    """Asks libvirt about VMs by their uuids, on a connection of its own.

    A call that hangs keeps the connection, so that others do not share it; then this one is given
    up by abandon(). Its other methods are for the thread pool.
    """

    def __init__(self, open_connection: Callable[[], libvirt.virConnect]) -> None:
        self._open = open_connection
        self._handle: libvirt.virConnect | None = None
        self._domains: dict[str, libvirt.virDomain] = {}
        self._abandoned = False

    def collect(self, uuids: Sequence[str]) -> list[tuple[str, dict[str, Any], int]]:
        """Bulk statistics as (uuid, fields, for how long QEMU has not answered, in ms).

        VMs that are gone are left out. It waits for a QEMU process that does not answer, unless
        something else waits for it already.
        """
        try:
            domains = self._find(uuids)
            if self._handle is None or not domains:
                return []
            found = self._handle.domainListGetStats(domains, BULK_STATS, BULK_FLAGS)
            return [(d.UUIDString(), fields, _silent_ms(d, fields)) for d, fields in found]
        finally:
            if self._abandoned:
                self.close()

    def collect_once(self, uuid: str) -> list[tuple[str, dict[str, Any], int]]:
        """The same for one VM, for a Collector that is used for nothing else."""
        self._abandoned = True
        return self.collect([uuid])

    def abandon(self) -> None:
        """A call hangs: when it comes back, it closes the connection."""
        self._abandoned = True

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._domains.clear()
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with contextlib.suppress(libvirt.libvirtError):
                handle.close()

    def _find(self, uuids: Sequence[str]) -> list[libvirt.virDomain]:
        """libvirt's objects of the VMs, each looked up once."""
        if self._handle is None or not self._handle.isAlive():
            self.close()
            self._handle = self._open()
        found = {}
        for uuid in uuids:
            with contextlib.suppress(libvirt.libvirtError):
                found[uuid] = self._domains.get(uuid) or self._handle.lookupByUUIDString(uuid)
        self._domains = found
        return list(found.values())


def _silent_ms(domain: libvirt.virDomain, fields: Mapping[str, Any]) -> int:
    """For how long QEMU's monitor has left a command without an answer; 0 for one that answers."""
    if monitor_answered(fields):
        return 0
    try:
        state, _, waiting_ms = domain.controlInfo()
    except libvirt.libvirtError:
        return SILENT_MS
    if state in (libvirt.VIR_DOMAIN_CONTROL_OK, libvirt.VIR_DOMAIN_CONTROL_JOB):
        return 0
    return int(waiting_ms) if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED else SILENT_MS


def monitor_answered(fields: Mapping[str, Any]) -> bool:
    """Whether the statistics hold what only QEMU's monitor knows."""
    count = fields.get("block.count", 0)
    return not count or any(_names("block", i, _DISK)[0] in fields for i in range(count))


def now_ms() -> int:
    """Milliseconds of the monotonic clock, in which samples are stamped."""
    return time.monotonic_ns() // 1_000_000


def sample(fields: Mapping[str, Any], before: VmSample | None, taken_ms: int) -> VmSample:
    """One VM's sample out of its bulk statistics; rates are against the sample before.

    While QEMU's monitor is busy libvirt leaves out what only QEMU knows: then the last figures
    stand, with their times.
    """
    known = before or _NOTHING
    cpu = _cpu(fields, known, taken_ms)
    tells = monitor_answered(fields)
    return VmSample(
        taken_ms=taken_ms,
        interval_s=(taken_ms - before.taken_ms) / 1000 if before else 0.0,
        cpu_time_ns=cpu.time_ns,
        cpu_system_ns=cpu.system_ns,
        cpu_user_pct=cpu.user_pct,
        cpu_sys_pct=cpu.sys_pct,
        vcpu_count=fields.get("vcpu.current", known.vcpu_count),
        balloon_current_kib=fields.get("balloon.current", known.balloon_current_kib),
        balloon_max_kib=fields.get("balloon.maximum", known.balloon_max_kib),
        memory=_memory(fields) or (None if tells else known.memory),
        disks=_disks(fields, known.disks, taken_ms, tells),
        nics=_nics(fields, known.nics, taken_ms),
        cpu_taken_ms=cpu.taken_ms,
    )


class _Cpu(NamedTuple):
    time_ns: int
    system_ns: int
    user_pct: float
    sys_pct: float
    taken_ms: int


def _cpu(fields: Mapping[str, Any], before: VmSample, taken_ms: int) -> _Cpu:
    if "cpu.time" not in fields:
        return _Cpu(before.cpu_time_ns, before.cpu_system_ns, 0.0, 0.0, before.cpu_taken_ms)
    time_ns, system_ns = fields["cpu.time"], fields.get("cpu.system", 0)
    if not before.cpu_taken_ms:
        return _Cpu(time_ns, system_ns, 0.0, 0.0, taken_ms)
    interval_s = (taken_ms - before.cpu_taken_ms) / 1000
    all_ns = _since(before.cpu_time_ns, time_ns)
    in_kernel_ns = _since(before.cpu_system_ns, system_ns)
    user_pct = _percent(_since(in_kernel_ns, all_ns), interval_s)
    return _Cpu(time_ns, system_ns, user_pct, _percent(in_kernel_ns, interval_s), taken_ms)


def _since(before: int, now: int) -> int:
    return max(now - before, 0)


def _percent(cpu_ns: int, interval_s: float) -> float:
    return cpu_ns / (interval_s * 1e7) if interval_s > 0 else 0.0


def _memory(fields: Mapping[str, Any]) -> MemorySample | None:
    if "balloon.unused" not in fields:
        return None
    return MemorySample(*[fields.get(name, 0) for name in _MEMORY])


def _nics(
    fields: Mapping[str, Any], before: Mapping[str, NicSample], taken_ms: int
) -> Mapping[str, NicSample]:
    if "net.count" not in fields:
        return before
    nics = {}
    for i in range(fields["net.count"]):
        name, names = fields.get(f"net.{i}.name", f"nic{i}"), _names("net", i, _NIC)
        told = any(counter in fields for counter in names)
        if told or name not in before:
            nics[name] = NicSample._make([*(fields.get(n, 0) for n in names), taken_ms])
        else:
            nics[name] = before[name]
    return nics


def _disks(
    fields: Mapping[str, Any], before: Mapping[str, DiskSample], taken_ms: int, tells: bool
) -> Mapping[str, DiskSample]:
    """tells: whether QEMU did; a disk of which it says nothing then, such as an empty one, is 0."""
    if "block.count" not in fields:
        return before
    disks = {}
    for i in range(fields["block.count"]):
        target = fields.get(f"block.{i}.name")
        if target is None:
            continue
        then = before.get(target, DiskSample())
        if not tells:
            disks[target] = _without_rates(then)
            continue
        figures = [fields.get(name, 0) for name in _names("block", i, _DISK)]
        now = DiskSample(*figures)._replace(taken_ms=taken_ms)
        interval_s = (taken_ms - then.taken_ms) / 1000
        fits = 0 < then.taken_ms < taken_ms
        disks[target] = _with_rates(now, then, interval_s) if fits else now
    return disks


def _without_rates(disk: DiskSample) -> DiskSample:
    return disk._replace(
        read_rate=0.0, write_rate=0.0, read_latency_ns=0, write_latency_ns=0, flush_latency_ns=0
    )


def _with_rates(now: DiskSample, before: DiskSample, interval_s: float) -> DiskSample:
    return now._replace(
        read_rate=_since(before.read_bytes, now.read_bytes) / interval_s,
        write_rate=_since(before.write_bytes, now.write_bytes) / interval_s,
        read_latency_ns=_mean(
            _since(before.read_time_ns, now.read_time_ns), _since(before.read_ops, now.read_ops)
        ),
        write_latency_ns=_mean(
            _since(before.write_time_ns, now.write_time_ns), _since(before.write_ops, now.write_ops)
        ),
        flush_latency_ns=_mean(
            _since(before.flush_time_ns, now.flush_time_ns), _since(before.flush_ops, now.flush_ops)
        ),
    )


def _mean(time_ns: int, ops: int) -> int:
    return time_ns // ops if ops else 0


@functools.lru_cache(maxsize=1024)
def _names(group: str, number: int, fields: tuple[str, ...]) -> tuple[str, ...]:
    """libvirt's names of the fields of one disk or NIC; put together once, not in each sample."""
    return tuple(f"{group}.{number}.{field}" for field in fields)
