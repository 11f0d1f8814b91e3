# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM as the wire describes it: VmDefinition and VmShortStatus (contract/types.txt).

Events tell of a VM's state in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.rpc.wire import disk
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.domain.domain_devices import Graphics
from vdsmcinder.virt.domain.stats import DiskSample
from vdsmcinder.virt.vm.status import Status
from vdsmcinder.virt.vm.vm import VM

# The displays that engines know, and the video adapter that they take for granted with each.
DISPLAY_TYPES: Mapping[str, str] = {"spice": "qxl", "vnc": "vnc"}
NOT_SAMPLED = DiskSample()


def short_status(vm: VM) -> dict[str, Any]:
    """The VM as VmShortStatus."""
    return {"vmId": vm.id, "status": vm.status.value}


def state(vm: VM) -> dict[str, Any]:
    """The status, with exitCode, exitReason and exitMessage if Down and pauseCode if Paused.

    For one that QEMU paused for I/O errors, failedDisks names the disks.
    """
    fields: dict[str, Any] = {"status": vm.status.value}
    if vm.exit is not None:
        fields["exitCode"] = int(vm.exit.code)
        fields["exitReason"] = int(vm.exit.reason)
        fields["exitMessage"] = vm.exit.message
    if vm.status is Status.PAUSED and vm.pause_code is not None:
        fields["pauseCode"] = vm.pause_code.value
        if vm.failed_disks:
            fields["failedDisks"] = vm.failed_disks
    return fields


def definition(vm: VM) -> dict[str, Any]:
    """The VM as VmDefinition."""
    now = state(vm)
    # The contract has it in statistics and events, but not here.
    now.pop("exitReason", None)
    return {
        "vmId": vm.id,
        "vmName": vm.name,
        "vmType": "kvm",
        "pid": vm.pid,
        **now,
        **_machine(vm.domain),
        **_display(vm.domain),
        "devices": _disks(vm),
        "custom": dict(vm.domain.metadata.custom),
        "clientIp": "",
        "nice": 0,
        "transparentHugePages": False,
    }


def known_graphics(domain: Domain) -> list[Graphics]:
    """The VM's displays, as far as engines know their kind."""
    return [g for g in domain.graphics if g.type in DISPLAY_TYPES]


def _machine(domain: Domain) -> dict[str, Any]:
    fields = {
        "memSize": domain.memory_mib,
        "maxMemSize": domain.max_memory_mib,
        "maxMemSlots": domain.memory_slots or None,
        "memGuaranteedSize": domain.metadata.min_guaranteed_mib or 0,
        "smp": domain.vcpus,
        "maxVCpus": domain.max_vcpus,
        "smpCoresPerSocket": domain.topology.cores,
        "smpThreadsPerCore": domain.topology.threads,
        "numOfIoThreads": domain.io_threads,
        "kvmEnable": domain.hypervisor == "kvm",
        # oVirt's engine casts it to text.
        "acpiEnable": "true" if domain.acpi else "false",
        # The contract has no negative ones here; statistics tell the offset with its sign.
        "timeOffset": max(domain.time_offset_s, 0),
        "emulatedMachine": domain.machine,
        "cpuType": domain.cpu,
        "serial": domain.serial,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _display(domain: Domain) -> dict[str, Any]:
    graphics = known_graphics(domain)
    if not graphics:
        return {}
    first = graphics[0]
    return {
        "display": DISPLAY_TYPES[first.type],
        "displayIp": first.listen or "0",
        "displayPort": first.port or -1,
        "displaySecurePort": first.tls_port or -1,
    }


def _disks(vm: VM) -> list[dict[str, Any]]:
    sampled = vm.sample.disks if vm.sample else {}
    return [disk.device(d, sampled.get(d.target, NOT_SAMPLED)) for d in vm.domain.drives]
