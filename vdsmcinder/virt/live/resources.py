# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving a running VM more processors or memory, or less.

Within the maxima that its domain was started with; memory is in KiB.
"""

from __future__ import annotations

import libvirt

from vdsmcinder.errors import SetCpusFailed, UpdateDeviceFailed
from vdsmcinder.virt.vm import cpu_limit, libvirt_errors
from vdsmcinder.virt.vm.vm import VM


async def set_cpus(vm: VM, count: int) -> None:
    """Plug or unplug virtual processors, so that there are count of them while the VM runs.

    Raises VMIsDown (6), SetCpusFailed (60) if the VM cannot have so many or the guest does not let
    go of one.
    """
    async with vm.lock:
        vm.require_running("given processors")
        if not 1 <= count <= vm.domain.max_vcpus:
            raise SetCpusFailed(
                f"VM {vm.id} cannot have {count} processors: it was created for 1 to "
                f"{vm.domain.max_vcpus}; ask for as many",
                maximum=vm.domain.max_vcpus,
            )
        try:
            await vm.call(_set_vcpus, count)
        except libvirt.libvirtError as e:
            action = f"VM {vm.id} could not be given {count} processors"
            raise libvirt_errors.explain(e, action, SetCpusFailed) from e
        finally:
            await vm.refresh()
        # Its policy's limit is for all of them together.
        await cpu_limit.enforce(vm)


async def set_balloon_target(vm: VM, target_kib: int) -> None:
    """Ask the guest's balloon driver to leave target_kib of memory to the guest.

    The guest gives back or takes memory as it can; the statistics tell how far it is.
    Raises VMIsDown (6), UpdateDeviceFailed (56) for more than the VM has, or without a balloon.
    """
    async with vm.lock:
        vm.require_running("given memory")
        action = f"the balloon of VM {vm.id} could not be told to leave {target_kib} KiB"
        remedy = (
            f"ask for 1 to {vm.domain.memory_mib * 1024} KiB, which is what it has"
            if vm.domain.balloon
            else "it has no balloon, create it with one"
        )
        if target_kib < 1:
            raise UpdateDeviceFailed(f"{action}, with which no guest runs; {remedy}")
        try:
            await vm.call(_set_memory, target_kib)
        except libvirt.libvirtError as e:
            raise libvirt_errors.explain(e, action, UpdateDeviceFailed, remedy=remedy) from e
        vm.balloon_asked(target_kib)


# What follows runs in the connection's thread pool.


def _set_vcpus(domain: libvirt.virDomain, count: int) -> None:
    domain.setVcpusFlags(count, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _set_memory(domain: libvirt.virDomain, target_kib: int) -> None:
    domain.setMemoryFlags(target_kib, libvirt.VIR_DOMAIN_AFFECT_LIVE)
