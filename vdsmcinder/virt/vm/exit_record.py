# SPDX-License-Identifier: GPL-2.0-or-later
"""How a VM ended, kept in its domain's metadata: libvirt forgets who wanted it and why.

It is recorded when a VM goes Down, and read back when its domain is found again.
"""

from __future__ import annotations

import logging

import libvirt

from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.metadata import VmMetadata
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.status import Cause, Exit, ExitCode, ExitReason
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)


async def record(vm: VM, how: Exit) -> None:
    """Write how the VM ended into its persistent domain."""
    values = {
        "exitCode": str(int(how.code)),
        "exitReason": str(int(how.reason)),
        "exitMessage": "".join(c for c in how.message if c.isprintable()),
    }
    try:
        await vm.services.connection.on_domain(vm.id, metadata.set_lasting, values)
    except (libvirt.libvirtError, VdsmCinderError) as e:
        log.warning("how %s ended could not be recorded, a restart will forget it: %s", vm.name, e)


def recorded(kept: VmMetadata) -> Change | None:
    """The end that was recorded, if any."""
    if kept.exit_code is None or kept.exit_reason is None:
        return None
    try:
        how = Exit(ExitCode(kept.exit_code), ExitReason(kept.exit_reason), kept.exit_message or "")
    except ValueError:
        return None
    return Change(Cause.STOPPED, exit=how)
