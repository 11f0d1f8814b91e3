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


def test_a_monitor_that_did_not_answer():
    assert stats.monitor_answered(FIRST)
    assert stats.monitor_answered({"cpu.time": 1})
    assert not stats.monitor_answered({"block.count": 1, "block.0.name": "vda"})
