# SPDX-License-Identifier: GPL-2.0-or-later
"""The share of the host's processors that a VM may use, made a quota of each of its own.

libvirt has the kernel stop a virtual processor that has run for its quota until its period is over
(https://libvirt.org/formatdomain.html, cputune).
"""

from __future__ import annotations

import logging
import os

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM, described

log = logging.getLogger(__name__)

PERIOD_US = 100_000
NO_QUOTA = -1
# libvirt takes none that is shorter.
SHORTEST_QUOTA_US = 1000


def quota_us(limit_pct: int | None, host_cpus: int, vcpus: int) -> int:
    """For how long each virtual processor may run in a period, in microseconds; -1 for all of it.

    limit_pct: what all of them together may use of all the host's processors; None or 0: no limit.
    """
    if not limit_pct:
        return NO_QUOTA
    share_us = limit_pct * host_cpus * PERIOD_US // (100 * max(vcpus, 1))
    return NO_QUOTA if share_us >= PERIOD_US else max(share_us, SHORTEST_QUOTA_US)


async def set_limit(vm: VM, limit_pct: int | None) -> None:
    """Have the VM keep to a limit, by as many processors as it has now.

    Raises libvirt.libvirtError, ResourceUnavailable.
    """
    quota = quota_us(limit_pct, os.cpu_count() or 1, vm.domain.vcpus)
    vm.take(await vm.call(_set_quota, quota))


async def enforce(vm: VM) -> None:
    """Have a VM that has begun to run here, or has other processors, keep to its policy's limit.

    What keeps it from that is logged: the VM runs on without a limit.
    """
    limit_pct = vm.domain.cpu_limit.limit_pct
    if limit_pct is None:
        return
    try:
        await set_limit(vm, limit_pct)
    except libvirt.libvirtError as e:
        log.warning(
            "%s may use more than the %d %% of the host's processors that its policy allows: %s",
            vm.name,
            limit_pct,
            libvirt_errors.own_words(e),
        )
    except ResourceUnavailable as e:
        log.warning("whether %s keeps to its policy's limit is not known: %s", vm.name, e)


def _set_quota(domain: libvirt.virDomain, quota: int) -> Document:
    """Runs in the connection's thread pool."""
    values = {"vcpu_period": PERIOD_US, "vcpu_quota": quota}
    domain.setSchedulerParametersFlags(values, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return described(domain)
