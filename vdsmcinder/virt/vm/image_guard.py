# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether another host has opened the images of a VM that stands: then it is not to run on.

A host that Ceph does not hear from for 30 s loses what it holds, and another may have started the
VM. What its guest believes of its disks is not true any more then, whoever has them later.
"""

from __future__ import annotations

import logging
import time

import libvirt

from vdsmcinder.errors import ResourceUnavailable, Unexpected
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.vm.status import PauseCode
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# What a host that died held is shown for 30 s, and OSDs may notice late: who is seen for longer
# lives.
LINGER_S = 45.0
# How long Ceph may take to tell who has images open, in seconds, before an operator is not kept
# waiting for it; a VM that waits for its storage waits for that, too.
OPERATOR_S = 3.0
STORAGE_S = 15.0


class ImageGuard:
    """Looks before each try to continue one VM that waits for its storage."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm
        self._since_s: float | None = None

    async def keeps_paused(self) -> bool:
        """Whether the VM is not to be continued now; if it never is, that is noted and told."""
        vm = self._vm
        found = await vm.services.preflight.open_elsewhere(vm.domain.ceph, STORAGE_S)
        if found is None:
            # It would not be the first time that another host is there and Ceph is slow to say so.
            log.info("%s stays paused: Ceph does not tell who has its images open", vm.name)
            return True
        if not found:
            self._since_s = None
            return False
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
            log.warning("%s stays paused: %s", vm.name, found)
        elif now_s - self._since_s >= LINGER_S:
            await _note(vm, found)
        return True


async def require_free(vm: VM) -> None:
    """Raise Unexpected (16) for a VM that is not to run on, as far as that is known."""
    if not vm.services.preflight.looks:
        return
    if vm.taken:
        raise Unexpected(f"VM {vm.id} cannot be continued: {vm.taken}")
    if vm.pause_code is PauseCode.NOERR and not vm.io.held:
        # It was paused while it had its images; a copy of it that a migration left behind, and that
        # Ceph shows for 30 s, takes nothing away.
        return
    found = await vm.services.preflight.open_elsewhere(vm.domain.ceph, OPERATOR_S)
    if found:
        raise Unexpected(
            f"VM {vm.id} cannot be continued: {found}; end what has it there, or destroy this VM; "
            "what a host that died holds, Ceph lets go after 30 s"
        )


async def _note(vm: VM, found: str) -> None:
    why = (
        f"{found} while this host could not write to it, so that what its guest believes of its "
        "disk is not true any more; destroy the VM here, and let it run where it runs, or start it "
        "anew"
    )
    log.error("%s stays paused for good: %s", vm.name, why)
    try:
        await vm.call(metadata.set_live, {metadata.TAKEN: why})
    except (libvirt.libvirtError, ResourceUnavailable) as e:
        log.warning("that %s stays paused could not be noted: %s", vm.name, e)
    vm.image_taken(why)
