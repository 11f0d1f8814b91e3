# SPDX-License-Identifier: GPL-2.0-or-later
"""Which Ceph clusters running VMs use, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vdsmcinder.ceph.cluster_monitor import Use
from vdsmcinder.ceph.workers import Account
from vdsmcinder.virt.disk.ceph_images import CephImage
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.vm.vm import VM


def in_use(vms: Iterable[VM], secrets: Secrets) -> Mapping[Account, Use]:
    """The accounts of the disks of VMs that are not Down."""
    found: dict[Account, Use] = {}
    for image in _images(vms):
        account = ceph_access.account(image)
        known = found.get(account, Use(None, frozenset()))
        key = ceph_access.key(image, secrets) or known.key
        found[account] = Use(key, known.pools | {image.pool})
    return found


def _images(vms: Iterable[VM]) -> Iterable[CephImage]:
    for vm in vms:
        if vm.running:
            yield from vm.domain.ceph.images
