# SPDX-License-Identifier: GPL-2.0-or-later
"""From a disk to Ceph: which account it uses, with which key, and how its faults are told.

preflight.py and resize.py ask Ceph about disks with it, clusters.py watches clusters.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.ceph.faults import CephFault
from vdsmcinder.ceph.hosts import MonitorHost
from vdsmcinder.ceph.workers import Account
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.secret import Secret
from vdsmcinder.virt.secrets import Secrets
from vdsmcinder.virt.source import NetworkSource


def account(source: NetworkSource) -> Account:
    """The cluster of an image, and the user."""
    # In whatever order and with whatever transport they are named, they are the same monitors.
    hosts = tuple(sorted({MonitorHost(host.name, host.port) for host in source.hosts}, key=str))
    return Account(hosts, source.config_file, source.auth.username if source.auth else None)


def key(source: NetworkSource, secrets: Secrets) -> Secret | None:
    """The user's key; None without CEPHX, and where its value was not given to this daemon."""
    return None if source.auth is None else secrets.value(source.auth.secret_uuid)


def error(
    fault: CephFault,
    action: str,
    source: NetworkSource,
    failure: type[VdsmCinderError],
    **data: Any,
) -> VdsmCinderError:
    """The error to answer with; action: what failed, as the beginning of a sentence.

    source: of the disk that Ceph was asked about. failure: the class to use where the fault has
    none of its own.
    """
    user = source.auth.username if source.auth else None
    message = f"{action}: {fault.cause(user)}; {fault.remedy(user)}"
    return (fault.kind.error or failure)(message, cause=fault.kind.word, **data)
