# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains: a provider's volumes within a data center."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DomainStatus(StrEnum):
    """As oVirt's API has them; locked while a job of it goes on."""

    UNATTACHED = "unattached"
    LOCKED = "locked"
    ACTIVE = "active"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"
    PREPARING_FOR_MAINTENANCE = "preparing_for_maintenance"


# How to read it: a domain of the status on the left may be given any of those on the right.
NEXT: Mapping[DomainStatus, frozenset[DomainStatus]] = {
    DomainStatus.UNATTACHED: frozenset({DomainStatus.LOCKED}),
    DomainStatus.LOCKED: frozenset(
        {
            DomainStatus.ACTIVE,
            DomainStatus.INACTIVE,
            DomainStatus.MAINTENANCE,
            DomainStatus.UNATTACHED,
        }
    ),
    DomainStatus.ACTIVE: frozenset({DomainStatus.PREPARING_FOR_MAINTENANCE, DomainStatus.INACTIVE}),
    DomainStatus.INACTIVE: frozenset(
        {DomainStatus.ACTIVE, DomainStatus.LOCKED, DomainStatus.PREPARING_FOR_MAINTENANCE}
    ),
    DomainStatus.MAINTENANCE: frozenset({DomainStatus.LOCKED, DomainStatus.UNATTACHED}),
    DomainStatus.PREPARING_FOR_MAINTENANCE: frozenset(
        {DomainStatus.MAINTENANCE, DomainStatus.INACTIVE}
    ),
}


@dataclass(frozen=True)
class StorageDomain:
    """Made with its provider, of which it has the name. reason: why it is inactive.

    used_bytes, available_bytes: None while unknown.
    """

    id: str
    name: str
    provider_id: str
    data_center_id: str | None = None
    description: str = ""
    comment: str = ""
    status: DomainStatus = DomainStatus.UNATTACHED
    reason: str = ""
    used_bytes: int | None = None
    available_bytes: int | None = None
    checked_ms: int = 0
