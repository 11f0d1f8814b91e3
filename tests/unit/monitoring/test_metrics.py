# SPDX-License-Identifier: GPL-2.0-or-later
"""How VMs, samples and tallies become metrics; test_daemon.py has them all in place."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.unit.rpc.test_wire import UUID, vm
from vdsmcinder.monitoring import metrics
from vdsmcinder.system.counters import OK, Tally
from vdsmcinder.virt.vm.status import Status

DOWN = "11111111-2222-4333-8444-555555555555"


def told(collected):
    """Samples by name, without our prefix, and the values of their labels."""
    return {
        (s.name.replace("vdsm_cinder_", "", 1), *s.labels.values()): s.value
        for metric in collected
        for s in metric.samples
    }


def test_a_vm_and_its_devices():
    down: Any = SimpleNamespace(**{**vars(vm(id=DOWN, status=Status.DOWN)), "running": False})
    up: Any = SimpleNamespace(**{**vars(vm()), "running": True})
    found = told(metrics._vms([metrics._VmNow.of(one) for one in (up, down)]))
    assert found["vms", "Up"] == found["vms", "Down"] == 1
    assert found["vms", "Paused"] == 0
    assert found["vm_info", UUID, "web"] == found["vm_info", DOWN, "web"] == 1
    assert found["vm_cpu_seconds_total", UUID] == 7
    assert found["vm_memory_bytes", UUID] == 900_000 * 1024
    assert found["vm_disk_read_bytes_total", UUID, "vda"] == 4096
    assert found["vm_disk_writes_total", UUID, "vda"] == 2
    assert found["vm_disk_capacity_bytes", UUID, "vda"] == 2**30
    assert found["vm_network_receive_bytes_total", UUID, "vnet0"] == 1
    assert found["vm_network_transmit_dropped_total", UUID, "vnet0"] == 6
    assert not any(DOWN in key and key[0] != "vm_info" for key in found)


def test_a_tally_becomes_a_counter_and_a_cumulative_histogram():
    tally = Tally()
    for outcome, took_ns in ((OK, 90_000), (OK, 200_000), ("75", 60 * 10**9)):
        tally.add(outcome, took_ns)
    found = told(metrics._work("request", "Requests", "verb", {"VM.x": tally, "idle": Tally()}))
    assert found["requests_total", "VM.x", "ok"] == 2
    assert found["requests_total", "VM.x", "75"] == 1
    buckets = [v for key, v in found.items() if key[0] == "request_duration_seconds_bucket"]
    assert buckets == [1, 2, *[2] * 12, 3]
    assert found["request_duration_seconds_count", "VM.x"] == 3
    assert found["request_duration_seconds_sum", "VM.x"] == 60.00029
    assert not any("idle" in key for key in found)
