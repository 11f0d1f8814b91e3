# SPDX-License-Identifier: GPL-2.0-or-later
"""What is checked before QEMU is handed a Ceph disk: its secret is registered, a monitor answers.

vm.py asks before a VM starts or a disk is plugged. QEMU finds the same faults, but late, in its own
words, and in the case of monitors that are silent only after minutes in which the VM hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from vdsmcinder.ceph.monitors import unreachable
from vdsmcinder.errors import ResourceUnavailable, VdsmCinderError
from vdsmcinder.virt.drive import Drive
from vdsmcinder.virt.secrets import Secrets
from vdsmcinder.virt.source import NetworkSource

MONITOR_TIMEOUT_S = 3.0

CephDisk = tuple[Drive, NetworkSource]


async def check(drives: Sequence[Drive], secrets: Secrets, failure: type[VdsmCinderError]) -> None:
    """Raise for the first drive that cannot work on this host now.

    failure: what to raise for a secret that is not registered (the verb's own code).
    Raises ResourceUnavailable (40) where no monitor of a drive answers.
    """
    network = [(d, d.source) for d in drives if isinstance(d.source, NetworkSource)]
    await _check_secrets(network, secrets, failure)
    await _check_monitors(network)


async def _check_secrets(
    disks: Sequence[CephDisk], secrets: Secrets, failure: type[VdsmCinderError]
) -> None:
    needed = {source.auth.secret_uuid: disk for disk, source in disks if source.auth is not None}
    for uuid in await secrets.missing(needed):
        disk = needed[uuid]
        raise failure(
            f"secret {uuid}, which disk {disk.name} ({disk.source.path}) needs, is not registered "
            "on this host; register it with Host.registerSecrets and call again",
            secret=uuid,
            disk=disk.name,
        )


async def _check_monitors(disks: Sequence[CephDisk]) -> None:
    # Disks of one cluster name the same monitors: each set is tried once. A disk without monitors
    # leaves them to the host's ceph.conf.
    clusters = {source.hosts: disk for disk, source in disks if source.hosts}
    answers = await asyncio.gather(*(unreachable(c, MONITOR_TIMEOUT_S) for c in clusters))
    for reasons, disk in zip(answers, clusters.values()):
        if reasons:
            tried = ", ".join(f"{monitor.name} ({why})" for monitor, why in reasons.items())
            raise ResourceUnavailable(
                f"no Ceph monitor of disk {disk.name} ({disk.source.path}) can be reached from "
                f"this host: {tried}; check the monitors and the network to them, then call again",
                disk=disk.name,
                monitors=[monitor.name for monitor in reasons],
            )
