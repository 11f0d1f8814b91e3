# SPDX-License-Identifier: GPL-2.0-or-later
"""From a disk to Ceph: which account it uses, with which key, and how its faults are told.

Keys are those that this daemon was given.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.ceph.diagnosis import Patient
from vdsmcinder.ceph.fault_kinds import CephFault
from vdsmcinder.ceph.image_use import ImageUse, Others
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.workers import Account
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.secrets.secrets import Secrets


def account(source: NetworkSource) -> Account:
    """The cluster of an image, and the user."""
    # In whatever order and with whatever transport they are named, they are the same monitors.
    hosts = tuple(sorted({MonitorHost(host.name, host.port) for host in source.hosts}, key=str))
    return Account(hosts, source.config_file, source.auth.username if source.auth else None)


def use(drive: Drive, source: NetworkSource, others: Others = Others.NOBODY) -> ImageUse:
    """How the drive uses its image. others: who may have it open if it is the VM's alone."""
    if drive.shared or drive.readonly or source.snapshot is not None:
        others = Others.ANYBODY
    return ImageUse(source.path, source.snapshot, others, drive.readonly)


def patient(drive: Drive, source: NetworkSource, *, open_here: bool) -> Patient:
    """The disk as ceph/diagnosis.py looks at it. open_here: its VM runs on this host."""
    secret = source.auth.secret_uuid if source.auth else None
    return Patient(account(source), use(drive, source), secret, open_here)


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
