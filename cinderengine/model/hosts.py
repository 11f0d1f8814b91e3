# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, as the database knows them; what they tell is in memory alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HostStatus(StrEnum):
    """As oVirt's API has them; pending_approval waits for the host to join with its token."""

    PENDING_APPROVAL = "pending_approval"
    INSTALLING = "installing"
    CONNECTING = "connecting"
    UP = "up"
    NON_OPERATIONAL = "non_operational"
    NON_RESPONSIVE = "non_responsive"
    PREPARING_FOR_MAINTENANCE = "preparing_for_maintenance"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True)
class Host:
    """A hypervisor. name: unique. reason: why it is not up, one sentence; empty if it is.

    token_digest: of the token that it may join with, hexadecimal SHA-256. fingerprint: of the key
    that it has joined with by that token, SHA-256 too; empty until it has.
    wanted: whether it is to be up; not after it was put into maintenance.
    """

    id: str
    name: str
    address: str
    cluster_id: str
    port: int = 54321
    description: str = ""
    comment: str = ""
    status: HostStatus = HostStatus.PENDING_APPROVAL
    reason: str = ""
    wanted: bool = True
    hardware_id: str = ""
    fingerprint: str = ""
    token_digest: str = ""
    token_expires_ms: int = 0
    created_ms: int = 0
