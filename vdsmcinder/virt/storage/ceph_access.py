# SPDX-License-Identifier: GPL-2.0-or-later
"""From an image to Ceph: which account it is opened with, by which key, and how faults are told.

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
from vdsmcinder.virt.disk.ceph_images import CephImage
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.secrets.secrets import Secrets


def account(image: CephImage) -> Account:
    """The cluster of an image, and the user."""
    # In whatever order and with whatever transport they are named, they are the same monitors.
    hosts = tuple(sorted({MonitorHost(host.name, host.port) for host in image.hosts}, key=str))
    return Account(hosts, image.config_file, image.user)


def use(image: CephImage, others: Others = Others.NOBODY) -> ImageUse:
    """How a disk uses its image. others: who may have it open if it is the VM's alone."""
    return ImageUse(
        image.path,
        image.snapshot,
        others if image.exclusive else Others.ANYBODY,
        image.readonly,
    )


def patient(image: CephImage, *, open_here: bool) -> Patient:
    """The image as ceph/diagnosis.py looks at it. open_here: its VM runs on this host."""
    secret = None if image.secret is None else str(image.secret)
    return Patient(account(image), use(image), secret, open_here)


def key(image: CephImage, secrets: Secrets) -> Secret | None:
    """The user's key; None without CEPHX, and where its value was not given to this daemon."""
    return None if image.secret is None else secrets.value(image.secret)


def error(
    fault: CephFault,
    action: str,
    image: CephImage,
    failure: type[VdsmCinderError],
    **data: Any,
) -> VdsmCinderError:
    """The error to answer with; action: what failed, as the beginning of a sentence.

    image: that Ceph was asked about. failure: the class to use where the fault has none of its own.
    """
    message = told(fault, action, image)
    return (fault.kind.error or failure)(message, cause=fault.kind.word, **data)


def told(fault: CephFault, action: str, image: CephImage) -> str:
    """A fault with its remedy; action: as error() takes it."""
    return f"{action}: {fault.cause(image.user)}; {fault.remedy(image.user)}"
