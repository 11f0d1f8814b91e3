# SPDX-License-Identifier: GPL-2.0-or-later
"""What users and operators are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """As oVirt's API has them."""

    NORMAL = "normal"
    WARNING = "warning"
    ERROR = "error"
    ALERT = "alert"


@dataclass(frozen=True)
class Event:
    """id: counts up. code: the number that oVirt's audit log has for that kind."""

    code: int
    severity: Severity
    description: str
    time_ms: int
    id: int | None = None
    correlation_id: str = ""
    user_id: str | None = None
    data_center_id: str | None = None
    cluster_id: str | None = None
    host_id: str | None = None
    domain_id: str | None = None
    disk_id: str | None = None
    job_id: str | None = None
