# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugging memory into a running VM and unplugging it: libvirt's <memory> devices.

A VM has slots for them if its domain was created with <maxMemory>; its memory then grows by the
size of each device.
"""

from __future__ import annotations

from dataclasses import dataclass

import libvirt
from lxml import etree

from vdsmcinder.errors import HotplugMemoryFailed, HotunplugMemoryFailed, Unexpected, VMIsDown
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM


@dataclass(frozen=True)
class MemoryPlug:
    """A memory device to plug, as libvirt's <memory>; guaranteed_mib: what the VM is promised."""

    device: etree._Element
    guaranteed_mib: int | None


@dataclass(frozen=True)
class MemoryUnplug:
    """A memory device to unplug, by its alias; guaranteed_mib: as above."""

    alias: str
    guaranteed_mib: int | None


async def plug(vm: VM, wanted: MemoryPlug) -> None:
    """Give the VM a memory device, for as long as it runs.

    Raises VMIsDown (6), HotplugMemoryFailed (70) without a slot for it, or if QEMU does not take
    it: the VM is as it was then. ResourceUnavailable (40).
    """
    async with vm.lock:
        vm.require_running("given memory")
        if not vm.domain.memory_slots:
            raise HotplugMemoryFailed(
                f"VM {vm.id} has no slots for memory; create it with <maxMemory slots=...> and a "
                "NUMA node, or with maxMemSize and maxMemSlots"
            )
        try:
            await device_ops.plug(vm, etree.tostring(wanted.device, encoding="unicode"))
        except libvirt.libvirtError as e:
            action = f"memory could not be plugged into VM {vm.id}, which is as it was"
            raise libvirt_errors.explain(e, action, HotplugMemoryFailed, remedy=_REMEDY) from e
        await _promise(vm, wanted.guaranteed_mib)


async def unplug(vm: VM, wanted: MemoryUnplug) -> None:
    """Have the guest let go of a memory device, and wait until it has.

    Raises VMIsDown (6), HotunplugMemoryFailed (85) if it is not plugged or the guest keeps it.
    """
    async with vm.lock:
        vm.require_running("unplugged from")
        try:
            await device_ops.unplug(vm, wanted.alias)
        except device_ops.StillPlugged as e:
            raise HotunplugMemoryFailed(
                f"memory {wanted.alias} is still plugged into VM {vm.id}: {e}; have the guest put "
                "it offline and call again"
            ) from None
        except VMIsDown as e:
            raise VMIsDown(f"memory {wanted.alias} was not unplugged: {e.message}") from None
        except libvirt.libvirtError as e:
            action = f"memory {wanted.alias} could not be unplugged from VM {vm.id}"
            raise libvirt_errors.explain(e, action, HotunplugMemoryFailed) from e
        await _promise(vm, wanted.guaranteed_mib)


_REMEDY = "compare its size and NUMA node with the VM's <maxMemory> and <numa>"


async def _promise(vm: VM, guaranteed_mib: int | None) -> None:
    if guaranteed_mib is None:
        return
    values = {metadata.GUARANTEED: str(guaranteed_mib)}
    await vm.command(metadata.set_live, values, doing="promised its memory", failure=Unexpected)
    await vm.refresh()
