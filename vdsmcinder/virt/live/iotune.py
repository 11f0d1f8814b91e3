# SPDX-License-Identifier: GPL-2.0-or-later
"""Limiting the I/O of a running VM's disks.

What is set is read from the VM's drives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import libvirt

from vdsmcinder.errors import IoTuneFailed
from vdsmcinder.fields import Fields
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM


@dataclass(frozen=True)
class Tunable:
    """The limits that a request sets on one disk, which it names by its target or by its path."""

    name: str | None
    path: str | None
    limits: IoTune

    def fits(self, drive: Drive) -> bool:
        """Whether this is the disk that is meant; its name tells it, where it is given."""
        if self.name is not None:
            return drive.target == self.name
        return drive.source.location == self.path


async def set_limits(vm: VM, wanted: Sequence[Tunable]) -> None:
    """Limit the I/O of disks while the VM runs; what is not named stays as it is.

    All disks are found, and all limits looked at, before the first is limited. Raises VMIsDown (6),
    IoTuneFailed (64), InvalidParameter (91) for limits that do not go with those in force.
    """
    async with vm.lock:
        vm.require_running("limited in its I/O")
        found = [(_drive(vm, tunable), tunable.limits) for tunable in wanted]
        check(vm, found)
        try:
            for drive, limits in found:
                await limit(vm, drive, limits)
        finally:
            await vm.refresh()


def check(vm: VM, wanted: Sequence[tuple[Drive, IoTune]]) -> None:
    """Look at what becomes of each disk's limits; a disk may be named several times.

    Raises InvalidParameter (91).
    """
    limits = {drive.target: drive.io_tune or IoTune(()) for drive, _ in wanted}
    for drive, change in wanted:
        limits[drive.target] = becomes = limits[drive.target].changed_by(change)
        refusal = becomes.refusal()
        if refusal is not None:
            thing = f"disk {drive.name} ({drive.source.path}) of VM {vm.id}, which is as it was"
            fields = Fields(becomes.values, thing, "ioTune")
            raise fields.invalid(refusal.limit, f"{refusal.expected}, with the limits in force")


async def limit(vm: VM, drive: Drive, limits: IoTune) -> None:
    """Limit the I/O of one disk of a VM whose lock is held. Raises IoTuneFailed (64)."""
    try:
        await vm.call(_set_block_io_tune, drive.target, dict(limits.values))
    except libvirt.libvirtError as e:
        action = (
            f"limits of disk {drive.name} ({drive.source.path}) of VM {vm.id} could not be set, "
            "those of the disks before it in the list are"
        )
        raise libvirt_errors.explain(e, action, IoTuneFailed) from e


def _drive(vm: VM, tunable: Tunable) -> Drive:
    for drive in vm.domain.drives:
        if tunable.fits(drive):
            return drive
    known = ", ".join(f"{d.name} ({d.source.path})" for d in vm.domain.drives) or "none"
    raise IoTuneFailed(
        f"VM {vm.id} has no disk {tunable.name or tunable.path}; its disks are: {known}; nothing "
        "was changed"
    )


def _set_block_io_tune(domain: libvirt.virDomain, target: str, values: dict[str, Any]) -> None:
    """Runs in the connection's thread pool."""
    domain.setBlockIoTune(target, values, libvirt.VIR_DOMAIN_AFFECT_LIVE)
