# SPDX-License-Identifier: GPL-2.0-or-later
"""From a disk to Ceph: which account it uses, with which key, and how its faults are told.

preflight.py and resize.py ask Ceph about disks with it, clusters.py watches clusters.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.ceph.faults import CephFault
from vdsmcinder.ceph.workers import Account
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.secret import Secret
from vdsmcinder.virt.secrets import Secrets
from vdsmcinder.virt.source import NetworkSource


def account(source: NetworkSource) -> Account:
    """The cluster of an image, and the user."""
    return Account(source.hosts, source.config_file, source.auth.username if source.auth else None)


def key(source: NetworkSource, secrets: Secrets) -> Secret | None:
    """The user's key; None without CEPHX, and where its value was not given to this daemon."""
    return None if source.auth is None else secrets.value(source.auth.secret_uuid)


def error(
    fault: CephFault, action: str, failure: type[VdsmCinderError], **data: Any
) -> VdsmCinderError:
    """The error to answer with; action: what failed, as the beginning of a sentence.

    failure: the class to use where the fault has none of its own.
    """
    kind = fault.kind
    words = f" ({fault.text})" if fault.text else ""
    message = f"{action}: {kind.cause}; {kind.remedy}{words}"
    return (kind.error or failure)(message, cause=kind.word, **data)
