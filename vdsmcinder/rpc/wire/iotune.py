# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O limits of a VM's disks on the wire: VmDiskDeviceTuneParams (contract/types.txt), and the
policy that an engine left for them.

All of it is known of the VM; libvirt is not asked.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.rpc.wire import disk
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.iotune_policy import DevicePolicy
from vdsmcinder.virt.vm.vm import VM

_UNLIMITED = dict.fromkeys(sorted(disk.IO_TUNE_LIMITS), 0)


def values(vm: VM) -> list[dict[str, Any]]:
    """The limits in force, of each disk; 0 for none."""
    return [_values(drive) for drive in vm.domain.drives]


def policy(vm: VM) -> list[dict[str, Any]]:
    """The policy of each disk that has one."""
    return [_policy(device) for device in vm.domain.io_tune_policy]


def _values(drive: Drive) -> dict[str, Any]:
    limits = {} if drive.io_tune is None else disk.io_tune(drive.io_tune)
    return {
        "name": drive.target,
        "path": drive.source.location,
        "ioTune": {**_UNLIMITED, **limits},
    }


def _policy(device: DevicePolicy) -> dict[str, Any]:
    fields = {
        "name": device.name,
        "path": device.path,
        "guaranteed": dict(device.guaranteed),
        "maximum": dict(device.maximum),
    }
    return {name: value for name, value in fields.items() if value}
