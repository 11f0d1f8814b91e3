# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples out of libvirt's bulk statistics: totals, rates and latencies."""

from __future__ import annotations

import pytest

from vdsmcinder.virt.domain import stats

FIRST = {
    "cpu.time": 10_000_000_000,
    "cpu.system": 1_000_000_000,
    "vcpu.current": 2,
    "balloon.current": 1024,
    "balloon.maximum": 2048,
    "balloon.unused": 512,
    "balloon.available": 1000,
    "net.count": 1,
    "net.0.name": "vnet0",
    "net.0.rx.bytes": 5,
    "block.count": 1,
    "block.0.name": "vda",
    "block.0.backingIndex": 1,
    "block.0.rd.bytes": 1000,
    "block.0.rd.reqs": 10,
    "block.0.rd.times": 100,
    "block.0.wr.bytes": 0,
    "block.0.capacity": 1 << 30,
}


def test_the_first_sample_has_totals_and_no_rates():
    sample = stats.sample(FIRST, None, 1000)
    assert (sample.interval_s, sample.cpu_user_pct, sample.vcpu_count) == (0.0, 0.0, 2)
    assert sample.disks["vda"].read_bytes == 1000
    assert sample.disks["vda"].read_rate == 0
    assert sample.disks["vda"].capacity == 1 << 30
    assert sample.nics["vnet0"].rx_bytes == 5
    assert (sample.memory.unused, sample.memory.total) == (512, 1000)


def test_rates_are_of_the_interval():
    second = {
        **FIRST,
        "cpu.time": 12_000_000_000,
        "cpu.system": 1_500_000_000,
        "block.0.rd.bytes": 5000,
        "block.0.rd.reqs": 12,
        "block.0.rd.times": 700,
    }
    sample = stats.sample(second, stats.sample(FIRST, None, 1000), 3000)
    assert sample.interval_s == 2.0
    assert sample.cpu_user_pct == pytest.approx(75.0)
    assert sample.cpu_sys_pct == pytest.approx(25.0)
    assert sample.disks["vda"].read_rate == 2000.0
    assert sample.disks["vda"].read_latency_ns == 300
    assert sample.disks["vda"].write_latency_ns == 0


def test_a_counter_that_was_reset_gives_no_negative_rate():
    sample = stats.sample({**FIRST, "block.0.rd.bytes": 1}, stats.sample(FIRST, None, 1000), 3000)
    assert sample.disks["vda"].read_rate == 0


# What libvirt tells of a VM whose monitor is busy: what it and the host's kernel know.
BUSY = {
    **{"cpu.time": 12_000_000_000, "cpu.system": 1_500_000_000, "vcpu.current": 2},
    **{"balloon.current": 1024, "balloon.maximum": 2048},
    **{"net.count": 1, "net.0.name": "vnet0", "net.0.rx.bytes": 9},
    **{"block.count": 1, "block.0.name": "vda"},
}


def test_while_the_monitor_is_busy_the_last_figures_stand_with_their_time():
    first = stats.sample(FIRST, None, 1000)
    second = stats.sample({**FIRST, "block.0.rd.bytes": 5000}, first, 3000)
    assert second.disks["vda"].read_rate == 2000.0
    busy = stats.sample(BUSY, second, 5000)
    still = stats.sample(BUSY, busy, 7000)
    for sample in (busy, still):
        disk = sample.disks["vda"]
        assert (disk.read_bytes, disk.capacity, disk.taken_ms) == (5000, 1 << 30, 3000)
        assert (disk.read_rate, disk.read_latency_ns) == (0.0, 0)
        assert sample.memory == first.memory
        assert (sample.balloon_current_kib, sample.vcpu_count) == (1024, 2)
    # What needs no QEMU is as of now.
    assert (still.nics["vnet0"].rx_bytes, still.nics["vnet0"].taken_ms) == (9, 7000)
    assert busy.cpu_sys_pct == pytest.approx(25.0)
    assert still.cpu_sys_pct == 0.0
    # The next rate is of all the time since figures were told.
    after = stats.sample({**FIRST, "block.0.rd.bytes": 11_000}, still, 9000)
    assert after.disks["vda"].read_rate == 1000.0
    assert after.disks["vda"].taken_ms == 9000


def test_a_first_sample_of_a_busy_monitor_gives_no_rate_to_the_next():
    busy = stats.sample(BUSY, None, 1000)
    assert (busy.disks["vda"].capacity, busy.disks["vda"].taken_ms) == (0, 0)
    assert busy.memory is None
    first = stats.sample({**FIRST, "block.0.wr.bytes": 1 << 40}, busy, 3000)
    assert first.disks["vda"].write_rate == 0.0
    assert first.disks["vda"].write_bytes == 1 << 40


def test_each_group_of_figures_that_is_not_told_stands():
    first = stats.sample(FIRST, None, 1000)
    none = stats.sample({}, first, 3000)
    assert (none.cpu_time_ns, none.cpu_system_ns) == (first.cpu_time_ns, first.cpu_system_ns)
    assert (none.cpu_user_pct, none.cpu_sys_pct) == (0.0, 0.0)
    assert (none.vcpu_count, none.balloon_current_kib, none.balloon_max_kib) == (2, 1024, 2048)
    assert (none.nics, none.disks) == (first.nics, first.disks)
    unread = stats.sample({"net.count": 1, "net.0.name": "vnet0"}, first, 3000)
    assert unread.nics["vnet0"] == first.nics["vnet0"]
    # Processors' time is reckoned from when it was told.
    after = stats.sample({**FIRST, "cpu.time": 14_000_000_000}, none, 5000)
    assert after.cpu_user_pct == pytest.approx(100.0)


def test_a_disk_of_which_an_answering_monitor_tells_nothing_is_empty():
    two = {**FIRST, "block.count": 2, "block.1.name": "sda", "block.1.rd.bytes": 7}
    first = stats.sample(two, None, 1000)
    without = {name: value for name, value in two.items() if name != "block.1.rd.bytes"}
    assert stats.sample(without, first, 3000).disks["sda"].read_bytes == 0
    # One that was unplugged is gone, also while the monitor is busy.
    assert stats.sample(BUSY, first, 3000).disks.keys() == {"vda"}


def test_a_monitor_that_did_not_answer():
    assert stats.monitor_answered(FIRST)
    assert stats.monitor_answered({"cpu.time": 1})
    assert not stats.monitor_answered({"block.count": 1, "block.0.name": "vda"})
