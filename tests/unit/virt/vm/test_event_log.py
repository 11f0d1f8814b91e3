# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log tells of a VM, in words and in fields."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import pytest

from vdsmcinder import logs
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.vm import event_log, lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.status import Cause, PauseCode, Status

BEFORE = """
<domain type='kvm'><name>web</name><uuid>6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47</uuid>
<memory unit='MiB'>2048</memory><vcpu current='2'>4</vcpu><os><type>hvm</type></os>
<devices>
<disk type='network' device='disk'><driver name='qemu' type='raw'/>
<source protocol='rbd' name='volumes/volume-a'><host name='10.0.0.1' port='6789'/></source>
<target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>
<target dev='sdc' bus='sata'/><readonly/></disk>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='ovirtmgmt'/>
<model type='virtio'/></interface>
</devices></domain>
"""
AFTER = (
    BEFORE.replace("current='2'", "current='3'")
    .replace("<target dev='sdc'", "<source file='/iso/tools.iso'/><target dev='sdc'")
    .replace("volume-a", "volume-b")
    .replace("'vda'", "'vdb'")
    .replace("<model type='virtio'/>", "<model type='virtio'/><link state='down'/>")
)


def test_a_vm_is_described_in_a_line() -> None:
    assert event_log.described(Domain.from_xml(BEFORE)) == (
        "2 CPUs, 2048 MiB, disk vda (volumes/volume-a on Ceph), cdrom sdc (empty), "
        "NIC 52:54:00:00:00:01 (network ovirtmgmt)"
    )


def test_what_changed_is_told_device_by_device() -> None:
    before, now = Domain.from_xml(BEFORE), Domain.from_xml(AFTER)
    assert list(event_log.devices_changed(before, now)) == [
        "disk vda (volumes/volume-a on Ceph) was unplugged",
        "disk vdb (volumes/volume-b on Ceph) was plugged",
        "cdrom sdc holds /iso/tools.iso now",
        "NIC 52:54:00:00:00:01 (network ovirtmgmt, its link is down) was changed",
        "it has 3 CPUs, had 2",
    ]
    without = dataclasses.replace(before, interfaces=())
    assert list(event_log.devices_changed(before, without)) == [
        "NIC 52:54:00:00:00:01 (network ovirtmgmt) was unplugged"
    ]
    assert list(event_log.devices_changed(before, before)) == []


@pytest.mark.parametrize(
    ("before", "now", "change", "asked_for", "told"),
    [
        (Status.UP, Status.PAUSED, lifecycle.PAUSED_BY_US, True, "is Paused, was Up for 7.0 s"),
        (
            *(Status.UP, Status.PAUSED, lifecycle.PAUSED_BY_US, False),
            "is Paused, was Up for 7.0 s: somebody did that through libvirt, not through this "
            "daemon",
        ),
        (
            *(Status.UP, Status.PAUSED, Change(Cause.SUSPENDED, PauseCode.ENOSPC), True),
            "is Paused, was Up for 7.0 s: QEMU stopped it, for a disk has no space left (ENOSPC)",
        ),
        (
            *(Status.UP, Status.POWERING_DOWN, lifecycle.POWERING_DOWN, False),
            "is Powering down, was Up for 7.0 s: the guest shuts itself down",
        ),
        (
            *(Status.UP, Status.DOWN, lifecycle.QEMU_LOST, False),
            f"is Down, was Up for 7.0 s: {lifecycle.QEMU_LOST.exit.message}",
        ),
    ],
)
def test_a_status_is_told_with_its_reason(
    before: Status, now: Status, change: Change, asked_for: bool, told: str
) -> None:
    assert event_log.changed(before, 7, now, change, asked_for=asked_for) == told


def test_what_needs_an_operator_is_a_warning() -> None:
    severities = {
        lifecycle.PAUSED_BY_IO_ERROR: logging.WARNING,
        lifecycle.QEMU_LOST: logging.WARNING,
        lifecycle.PAUSED_BY_US: logging.INFO,
        lifecycle.DESTROYED: logging.INFO,
        lifecycle.RUNNING: logging.INFO,
    }
    assert {change: event_log.severity(change) for change in severities} == severities


def test_a_vm_that_was_there_is_told_with_its_age() -> None:
    told = "was found as it is in libvirt: Up, running for 3.0 h"
    assert event_log.found(Status.UP, lifecycle.RUNNING, 10800) == told
    down = event_log.found(Status.DOWN, lifecycle.GUEST_SHUT_DOWN, 0)
    assert down.startswith("was found as it is in libvirt: Down: The guest shut itself down")


@pytest.mark.parametrize(
    ("time_s", "told"),
    [(0.0124, "12 ms"), (1.25, "1.2 s"), (600, "10 min"), (90000, "25.0 h"), (864000, "10.0 days")],
)
def test_spans(time_s: float, told: str) -> None:
    assert event_log.span(time_s) == told


def marked() -> logging.LogRecord:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "x", (), None)
    logs.Marks().filter(record)
    return record


async def test_lines_carry_what_caused_them() -> None:
    async def serve() -> logs.Cause | None:
        logs.flow_id.set("flow")
        logs.call.set(logs.Call("VM.pause", "CN=engine"))
        record = marked()
        fields = ("FLOW_ID", "VERB", "CLIENT")
        assert [vars(record)[f] for f in fields] == ["flow", "VM.pause", "CN=engine"]
        return logs.cause()

    cause = await asyncio.create_task(serve())
    assert logs.cause() is None
    assert not {"FLOW_ID", "VERB", "CLIENT"} & vars(marked()).keys()
    with logs.caused_by(cause):
        assert vars(marked())["VERB"] == "VM.pause"
        # What comes of another request says so.
        with logs.caused_by(logs.Cause("other", None)):
            assert vars(marked())["FLOW_ID"] == "flow"
    with logs.caused_by(None):
        assert logs.cause() is None


def test_an_end_has_its_time_and_its_error() -> None:
    assert logs.ended(12.345) == {"DURATION_MS": "12.3"}
    assert logs.ended(0.5, 45) == {"DURATION_MS": "0.5", "ERROR_CODE": 45}
