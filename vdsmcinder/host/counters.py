# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's counters, as they stand now: processors, memory, NICs, KSM, huge pages.

Rates are made of them elsewhere. Formats are those of proc(5) and of the kernel's Documentation/ABI
for sysfs.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vdsmcinder.host.files import choice, number, numbered, text
from vdsmcinder.host.numa import cpus_of_nodes, huge_page_pools

# What fills up first on a host and stops VMs from being started or logged.
WATCHED_PATHS = ("/tmp", "/var/log", "/run")

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ticks:
    """Time that processors spent since boot, in clock ticks; total holds idle and stolen too."""

    user: int = 0
    sys: int = 0
    total: int = 0


@dataclass(frozen=True)
class Memory:
    """The machine's memory, in KiB."""

    total_kib: int
    free_kib: int
    available_kib: int  # what can be had without swapping, by the kernel's estimate
    shared_kib: int
    anon_huge_kib: int
    swap_total_kib: int
    swap_free_kib: int

    @property
    def used_pct(self) -> float:
        """Memory that is not available, in percent of all."""
        return used_pct(self.total_kib, self.available_kib)


@dataclass(frozen=True)
class NodeMemory:
    """The memory of one NUMA node, in KiB; free huge pages by their size in KiB."""

    total_kib: int
    free_kib: int
    free_huge_pages: Mapping[int, int]

    @property
    def used_pct(self) -> float:
        """Memory that is not free, in percent of all."""
        return used_pct(self.total_kib, self.free_kib)


@dataclass(frozen=True)
class HugePages:
    """The machine's pool of huge pages of one size: how many there are, and what is free."""

    total: int
    free: int


@dataclass(frozen=True)
class Nic:
    """One network interface: its state, and totals since it appeared."""

    name: str
    state: str  # up, down or unknown
    speed_mbps: int | None  # None where the driver does not tell, as for bridges and taps
    rx_bytes: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True)
class Ksm:
    """Kernel same-page merging."""

    running: bool
    pages_sharing: int
    merge_across_nodes: bool
    cpu_s: float  # processor time of ksmd since boot


@dataclass(frozen=True)
class Counters:
    """One reading of everything that HostSample needs."""

    monotonic_s: float
    wall_s: float
    boot_time_s: int
    load_1min: float
    cpu: Ticks
    cores: Mapping[int, Ticks]
    core_node: Mapping[int, int]
    daemon_user_s: float
    daemon_sys_s: float
    memory: Memory
    ksm: Ksm
    thp: str
    huge_pages: Mapping[int, HugePages]  # by their size in KiB
    nodes: Mapping[int, NodeMemory]
    nics: Mapping[str, Nic]
    free_mib: Mapping[str, int] = field(default_factory=dict)


def read(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Counters:
    """Read all counters; blocks for as long as the kernel takes, some milliseconds at most.

    What this kernel does not have reads as zero or empty.
    """
    stat = text(proc / "stat")
    all_ticks, cores = parse_stat(stat)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Counters(
        monotonic_s=time.monotonic(),
        wall_s=time.time(),
        boot_time_s=parse_boot_time(stat),
        load_1min=os.getloadavg()[0],
        cpu=all_ticks,
        cores=cores,
        core_node={core: node for node, cpus in cpus_of_nodes(sys).items() for core in cpus},
        daemon_user_s=usage.ru_utime,
        daemon_sys_s=usage.ru_stime,
        memory=parse_meminfo(text(proc / "meminfo")),
        ksm=_ksm(proc, sys),
        thp=choice(sys / "kernel/mm/transparent_hugepage/enabled", "never"),
        huge_pages={
            size: HugePages(number(pool / "nr_hugepages"), number(pool / "free_hugepages"))
            for size, pool in huge_page_pools(sys / "kernel/mm")
        },
        nodes={n: _node(path) for n, path in numbered(sys / "devices/system/node", "node")},
        nics=_nics(proc, sys),
        free_mib={p: free for p in WATCHED_PATHS if (free := _free_mib(p)) is not None},
    )


def at_boot(now: Counters) -> Counters:
    """The counters as they stood when the machine started, to measure a first interval from."""
    return replace(
        now,
        monotonic_s=0.0,
        cpu=Ticks(),
        cores={},
        daemon_user_s=0.0,
        daemon_sys_s=0.0,
        ksm=replace(now.ksm, cpu_s=0.0),
    )


def used_pct(total_kib: int, left_kib: int) -> float:
    """What is taken of a memory, in percent."""
    return 100.0 * (total_kib - left_kib) / total_kib if total_kib else 0.0


def parse_stat(stat: str) -> tuple[Ticks, dict[int, Ticks]]:
    """/proc/stat: the ticks of all processors together, and of each by its number."""
    together, cores = Ticks(), {}
    for line in stat.splitlines():
        name, *columns = line.split()
        if name == "cpu":
            together = _ticks(columns)
        elif name.startswith("cpu"):
            cores[int(name[3:])] = _ticks(columns)
    return together, cores


def _ticks(columns: list[str]) -> Ticks:
    # The two columns after steal are guests' time, which user and nice contain already.
    values = [int(column) for column in columns[:8]]
    user, nice, system, _idle, _iowait, irq, softirq = values[:7]
    return Ticks(user + nice, system + irq + softirq, sum(values))


def parse_boot_time(stat: str) -> int:
    """/proc/stat: when the machine started, in seconds since the epoch; 0 if it does not say."""
    for line in stat.splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0


def parse_meminfo(meminfo: str) -> Memory:
    """/proc/meminfo as Memory."""
    kib = _kib(meminfo)
    free = kib.get("MemFree", 0)
    return Memory(
        total_kib=kib.get("MemTotal", 0),
        free_kib=free,
        available_kib=kib.get("MemAvailable", free),
        shared_kib=kib.get("Shmem", 0),
        anon_huge_kib=kib.get("AnonHugePages", 0),
        swap_total_kib=kib.get("SwapTotal", 0),
        swap_free_kib=kib.get("SwapFree", 0),
    )


def _kib(meminfo: str) -> dict[str, int]:
    """Both forms: 'MemFree: 12 kB' of the machine and 'Node 0 MemFree: 12 kB' of a node."""
    values = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            values[name.split()[-1]] = int(words[0])
    return values


def _node(path: Path) -> NodeMemory:
    kib = _kib(text(path / "meminfo"))
    return NodeMemory(
        total_kib=kib.get("MemTotal", 0),
        free_kib=kib.get("MemFree", 0),
        free_huge_pages={
            size: number(folder / "free_hugepages") for size, folder in huge_page_pools(path)
        },
    )


def _nics(proc: Path, sys: Path) -> dict[str, Nic]:
    nics = {}
    for line in text(proc / "net/dev").splitlines():
        name, colon, columns = line.partition(":")
        if colon and name.strip() != "lo":
            nic = _nic(name.strip(), columns.split(), sys / "class/net" / name.strip())
            nics[nic.name] = nic
    return nics


def _nic(name: str, columns: list[str], folder: Path) -> Nic:
    # Eight columns of receive, eight of transmit: bytes, packets, errs, drop, and others.
    state = text(folder / "operstate")
    speed = number(folder / "speed", -1)
    return Nic(
        name=name,
        state=state if state in ("up", "down") else "unknown",
        speed_mbps=speed if speed > 0 else None,
        rx_bytes=int(columns[0]),
        rx_errors=int(columns[2]),
        rx_dropped=int(columns[3]),
        tx_bytes=int(columns[8]),
        tx_errors=int(columns[10]),
        tx_dropped=int(columns[11]),
    )


def _ksm(proc: Path, sys: Path) -> Ksm:
    ksm = sys / "kernel/mm/ksm"
    running = number(ksm / "run") == 1
    return Ksm(
        running=running,
        pages_sharing=number(ksm / "pages_sharing"),
        # A kernel without NUMA has no such file, and nothing to merge across.
        merge_across_nodes=number(ksm / "merge_across_nodes", 1) == 1,
        cpu_s=_ksmd_cpu_s(proc) if running else 0.0,
    )


def _ksmd_cpu_s(proc: Path) -> float:
    for _pid, folder in numbered(proc, ""):
        if text(folder / "comm") != "ksmd":
            continue
        # utime and stime, proc(5); 'ksmd' holds no blank that could shift the columns.
        columns = text(folder / "stat").split()
        return (int(columns[13]) + int(columns[14])) / TICKS_PER_S
    return 0.0


def _free_mib(path: str) -> int | None:
    try:
        fs = os.statvfs(path)
    except OSError:
        return None
    return fs.f_bavail * fs.f_frsize // 1024**2
