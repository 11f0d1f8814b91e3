# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving a running VM another policy: the share of the processors, and the I/O of its disks.

What it allows at most is put in force, and all of it is kept in the domain's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libvirt

from vdsmcinder.errors import IoTuneFailed, PolicyFailed
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.iotune_policy import DevicePolicy
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.domain import policy
from vdsmcinder.virt.domain.disk_lookup import DiskNames, find
from vdsmcinder.virt.live import iotune
from vdsmcinder.virt.vm import cpu_limit, libvirt_errors
from vdsmcinder.virt.vm.vm import VM


@dataclass(frozen=True)
class DiskChange:
    """What a disk may do at most, and shall get at least; None keeps what there is."""

    names: DiskNames
    maximum: IoTune | None
    guaranteed: IoTune | None

    def of(self, drive: Drive) -> DevicePolicy:
        """As it stands in the metadata, by the disk's own names."""
        return DevicePolicy(
            name=drive.target,
            path=drive.source.path or None,
            guaranteed=dict(self.guaranteed.limits if self.guaranteed else ()),
            maximum=dict(self.maximum.limits if self.maximum else ()),
        )


@dataclass(frozen=True)
class PolicyChange:
    """limit_pct: of the host's processors; 0 is none, None keeps it."""

    limit_pct: int | None
    disks: tuple[DiskChange, ...]


async def change(vm: VM, wanted: PolicyChange) -> None:
    """Change the VM's policy; what is not named stays as it is.

    All disks are found before anything is changed. Raises VMIsDown (6), PolicyFailed (63),
    InvalidParameter (91) for limits that QEMU does not take.
    """
    async with vm.lock:
        vm.require_running("given another policy")
        found = [(disk, _drive(vm, disk)) for disk in wanted.disks]
        limits = [(drive, disk.maximum) for disk, drive in found if disk.maximum is not None]
        iotune.check(vm, limits)
        try:
            await _put_in_force(vm, wanted.limit_pct, limits)
            devices = [disk.of(drive) for disk, drive in found]
            await vm.call(policy.write_live, wanted.limit_pct, devices)
        except libvirt.libvirtError as e:
            action = f"the policy of VM {vm.id} could not be changed"
            raise libvirt_errors.explain(e, action, PolicyFailed) from e
        except IoTuneFailed as e:
            raise PolicyFailed(e.message) from e
        finally:
            await vm.refresh()


async def _put_in_force(
    vm: VM, limit_pct: int | None, limits: Sequence[tuple[Drive, IoTune]]
) -> None:
    for drive, maximum in limits:
        await iotune.limit(vm, drive, maximum)
    if limit_pct is not None:
        await cpu_limit.set_limit(vm, limit_pct)


def _drive(vm: VM, disk: DiskChange) -> Drive:
    drive = find(vm.domain, disk.names)
    if drive is not None:
        return drive
    known = ", ".join(f"{d.name} ({d.source.path})" for d in vm.domain.drives) or "none"
    raise PolicyFailed(
        f"VM {vm.id} has no disk of {disk.names}; its disks are: {known}; nothing was changed"
    )
