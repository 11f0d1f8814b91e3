# SPDX-License-Identifier: GPL-2.0-or-later
"""Which Ceph clusters running VMs use, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vdsmcinder.ceph.cluster_monitor import Use
from vdsmcinder.ceph.workers import Account
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.vm.vm import VM


def in_use(vms: Iterable[VM], secrets: Secrets) -> Mapping[Account, Use]:
    """The accounts of the disks of VMs that are not Down."""
    found: dict[Account, Use] = {}
    for source in _sources(vms):
        account = ceph_access.account(source)
        known = found.get(account, Use(None, frozenset()))
        key = ceph_access.key(source, secrets) or known.key
        found[account] = Use(key, known.pools | {source.pool})
    return found


def _sources(vms: Iterable[VM]) -> Iterable[NetworkSource]:
    for vm in vms:
        if vm.running:
            yield from (d.source for d in vm.domain.drives if isinstance(d.source, NetworkSource))
