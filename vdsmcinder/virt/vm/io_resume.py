# SPDX-License-Identifier: GPL-2.0-or-later
"""Continuing a VM that QEMU paused because a disk failed, once the disk's storage is back.

It looks again when a cluster is said to be back. An operator who paused the VM as well has to
continue it.
"""

from __future__ import annotations

import logging
import time

import libvirt

from vdsmcinder.ceph.fault_kinds import FULL, CephFault
from vdsmcinder.ceph.workers import result
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.vm.image_guard import ImageGuard
from vdsmcinder.virt.vm.parts.io_errors import MAX_PAUSE_S
from vdsmcinder.virt.vm.status import PauseCode, Status
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# Where Ceph can be asked a try in vain costs nothing; where not, the guest runs until its next
# write fails.
PROBE_TIMEOUT_S = 5.0


async def continue_when_back(vm: VM) -> None:
    """Return when the VM runs again, has ended, or is held by an operator."""
    if vm.io.awaited:
        return
    with vm.io.awaiting():
        if not vm.io.disks:
            await _learn_disks(vm)
        pause_s, guard = vm.io.first_pause_s(time.monotonic()), ImageGuard(vm)
        while waits(vm):
            await vm.io.wait_for_storage(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            if not waits(vm) or not await _storage_answers(vm) or await guard.keeps_paused():
                continue
            await _resume(vm)


def waits(vm: VM) -> bool:
    """Whether the VM is paused for an I/O error, and for nothing else."""
    failed = vm.pause_code in (PauseCode.EIO, PauseCode.ENOSPC)
    return vm.status is Status.PAUSED and failed and not vm.io.held


async def _learn_disks(vm: VM) -> None:
    """Ask libvirt which disks it was: the events came while nobody listened."""
    try:
        errors = await vm.call(libvirt.virDomain.diskErrors)
    except (libvirt.libvirtError, ResourceUnavailable) as e:
        log.warning("which disk of %s failed is not known: %s", vm.name, e)
        return
    for disk, error in errors.items():
        full = error == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE
        vm.io_error(disk, "enospc" if full else "")


async def _storage_answers(vm: VM) -> bool:
    """Whether the images of the disks that failed can be read, and may be written; True where Ceph
    cannot be asked.
    """
    for image in vm.domain.ceph.images:
        if image.disk not in vm.io.disks:
            continue
        key = ceph_access.key(image, vm.services.secrets)
        if key is None and image.secret is not None:
            continue
        use = ceph_access.use(image)
        try:
            (looked,) = await vm.services.ceph.ask(
                ceph_access.account(image),
                key,
                "inspect",
                timeout_s=PROBE_TIMEOUT_S,
                images=[use.question(None)],
            )
            fault = use.unwritable(result(looked))
        except CephFault as e:
            # What is wrong with the question (a key that was changed) says nothing of the storage.
            if e.kind.error is not ResourceUnavailable:
                log.info("%s: disk %s cannot be asked about: %s", vm.name, image.disk, e)
                continue
            fault = e
        if fault is not None:
            log.info("%s stays paused: %s", vm.name, ceph_access.told(fault, image.words, image))
            if fault.kind in FULL:
                vm.lacks_room()
            return False
    return True


async def _resume(vm: VM) -> None:
    async with vm.lock:
        if not waits(vm):
            return
        log.info("%s is continued: its storage answers, or cannot be asked", vm.name)
        vm.io.tried(time.monotonic())
        try:
            # The events tell what comes of it: it may be paused again before this returns.
            await vm.call(libvirt.virDomain.resume)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s could not be continued: %s", vm.name, e)
