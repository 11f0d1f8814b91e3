# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's figures: what the kernel's counters say, what two readings of them make, and the
sampler against this machine's own kernel."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest

from vdsmcinder.host import counters, stats
from vdsmcinder.host.counters import Counters, HugePages, Ticks
from vdsmcinder.host.stats import CpuShare, HostSampler
from vdsmcinder.tasks import Tasks

STAT = """\
cpu  1000 100 500 7000 300 20 80 50 400 0
cpu0 600 50 300 3500 200 10 40 25 400 0
cpu2 400 50 200 3500 100 10 40 25 0 0
intr 123 4 5
btime 1795384581
procs_running 1
"""

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:         1000000 kB
MemAvailable:    4000000 kB
Shmem:             25000 kB
AnonHugePages:    204800 kB
SwapTotal:       2000000 kB
SwapFree:        1500000 kB
HugePages_Total:       0
"""

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0
   em1:  123456     789    1    2    0     0          0         0   654321     987    3    4    0
ovirtmgmt:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0
"""


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """A /proc and a /sys with one NUMA node, KSM at work and a NIC."""
    files = {
        "proc/stat": STAT,
        "proc/meminfo": MEMINFO,
        "proc/net/dev": NET_DEV,
        "proc/41/comm": "kswapd0",
        "proc/42/comm": "ksmd",
        "proc/42/stat": "42 (ksmd) S 2 0 0 0 -1 0 0 0 0 0 150 250 0 0",
        "sys/devices/system/node/node0/cpulist": "0,2",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 100 kB\nNode 0 MemFree: 25 kB",
        "sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages": "7",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "9",
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "8",
        "sys/kernel/mm/ksm/run": "1",
        "sys/kernel/mm/ksm/pages_sharing": "321",
        "sys/kernel/mm/ksm/merge_across_nodes": "0",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "sys/class/net/em1/operstate": "up",
        "sys/class/net/em1/speed": "10000",
        "sys/class/net/ovirtmgmt/operstate": "dormant",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "proc", tmp_path / "sys"


def test_time_of_processors_counts_guests_once() -> None:
    together, cores = counters.parse_stat(STAT)
    assert together == Ticks(user=1100, sys=600, total=9050)
    assert cores == {0: Ticks(650, 350, 4725), 2: Ticks(450, 250, 4325)}
    assert counters.parse_boot_time(STAT) == 1795384581


def test_memory_that_can_be_had_does_not_count_as_used(machine: tuple[Path, Path]) -> None:
    memory = counters.read(*machine).memory
    assert memory.used_pct == 75.0
    assert (memory.total_kib, memory.free_kib) == (16000000, 1000000)
    assert (memory.swap_total_kib, memory.swap_free_kib) == (2000000, 1500000)
    assert (memory.shared_kib, memory.anon_huge_kib) == (25000, 204800)


def test_nodes_have_memory_of_their_own(machine: tuple[Path, Path]) -> None:
    found = counters.read(*machine)
    assert found.nodes[0].used_pct == 75.0
    assert found.nodes[0].free_huge_pages == {2048: 7}
    assert found.core_node == {0: 0, 2: 0}


def test_nics_are_all_links_but_loopback(machine: tuple[Path, Path]) -> None:
    nics = counters.read(*machine).nics
    assert set(nics) == {"em1", "ovirtmgmt"}
    em1 = nics["em1"]
    assert (em1.state, em1.speed_mbps) == ("up", 10000)
    assert (em1.rx_bytes, em1.rx_errors, em1.rx_dropped) == (123456, 1, 2)
    assert (em1.tx_bytes, em1.tx_errors, em1.tx_dropped) == (654321, 3, 4)
    assert (nics["ovirtmgmt"].state, nics["ovirtmgmt"].speed_mbps) == ("unknown", None)


def test_page_merging_and_huge_pages(machine: tuple[Path, Path]) -> None:
    found = counters.read(*machine)
    assert (found.ksm.running, found.ksm.pages_sharing) == (True, 321)
    assert found.ksm.merge_across_nodes is False
    assert found.ksm.cpu_s == 400 / os.sysconf("SC_CLK_TCK")
    assert found.thp == "madvise"
    assert found.huge_pages == {2048: HugePages(total=9, free=8)}


def test_a_machine_that_tells_nothing_reads_as_zero(tmp_path: Path) -> None:
    found = counters.read(tmp_path, tmp_path)
    assert (found.cpu, found.cores, found.nics, found.nodes) == (Ticks(), {}, {}, {})
    assert found.memory.used_pct == 0.0
    assert found.thp == "never"


def test_shares_of_the_interval_add_up() -> None:
    first, last = Ticks(1000, 500, 10000), Ticks(1030, 510, 10100)
    assert stats.share(first, last) == CpuShare(30.0, 10.0, 60.0)


def test_no_time_between_two_readings_is_idle_time() -> None:
    assert stats.share(Ticks(5, 5, 10), Ticks(5, 5, 10)) == CpuShare(0.0, 0.0, 100.0)


def later(reading: Counters, seconds: float) -> Counters:
    """A reading some seconds after another in which the daemon and ksmd were at work."""
    return dataclasses.replace(
        reading,
        monotonic_s=reading.monotonic_s + seconds,
        daemon_user_s=reading.daemon_user_s + 1.0,
        daemon_sys_s=reading.daemon_sys_s + 0.5,
        ksm=dataclasses.replace(reading.ksm, cpu_s=reading.ksm.cpu_s + 0.2),
        cores={**reading.cores, 3: Ticks(30, 10, 100)},
    )


def test_a_sample_has_rates_of_its_interval(machine: tuple[Path, Path]) -> None:
    first = counters.read(*machine)
    sample = stats.between(first, later(first, 10.0), started=first.monotonic_s - 20.0)
    assert sample.interval_s == pytest.approx(10.0)
    assert sample.elapsed_s == pytest.approx(30.0)
    assert sample.daemon_user_pct == pytest.approx(10.0)
    assert sample.daemon_sys_pct == pytest.approx(5.0)
    assert sample.ksm_cpu_pct == pytest.approx(2.0)


def test_a_processor_that_came_online_counts_from_nothing(machine: tuple[Path, Path]) -> None:
    first = counters.read(*machine)
    sample = stats.between(first, later(first, 10.0), started=0.0)
    assert sample.cores[3] == CpuShare(30.0, 10.0, 60.0)


async def test_the_first_sample_is_there_when_start_returns() -> None:
    sampler = HostSampler(Tasks("host"))
    with pytest.raises(RuntimeError):
        sampler.snapshot()
    await sampler.start()
    sample = sampler.snapshot()
    await sampler.close()
    assert set(sample.cores) >= os.sched_getaffinity(0)
    assert sample.memory.total_kib > sample.memory.available_kib > 0
    assert sample.cpu.user_pct + sample.cpu.sys_pct + sample.cpu.idle_pct == pytest.approx(100)


async def test_sampling_goes_on_until_closed_even_after_a_failure() -> None:
    readings: list[Counters] = []
    fourth = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> Counters:
        readings.append(counters.read())
        if len(readings) == 2:
            raise OSError("this reading fails")
        if len(readings) == 4:
            loop.call_soon_threadsafe(fourth.set)
        return readings[-1]

    sampler = HostSampler(Tasks("host"), interval_s=0.01, read=read)
    await sampler.start()
    first = sampler.snapshot()
    await asyncio.wait_for(fourth.wait(), 30)
    await sampler.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert first.taken_ms == int(readings[0].monotonic_s * 1000)
    assert sampler.snapshot().taken_ms in [int(r.monotonic_s * 1000) for r in readings[2:]]
