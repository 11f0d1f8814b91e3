# SPDX-License-Identifier: GPL-2.0-or-later
"""Data centers, and the clusters of hosts in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DataCenterStatus(StrEnum):
    """UNINITIALIZED has had no storage domain yet."""

    UNINITIALIZED = "uninitialized"
    UP = "up"
    MAINTENANCE = "maintenance"
    NOT_OPERATIONAL = "not_operational"


@dataclass(frozen=True)
class DataCenter:
    """Hosts and storage domains that belong together. name: unique."""

    id: str
    name: str
    description: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Cluster:
    """Hosts among which VMs may move. name: unique. cpu_type: empty if it is the hosts' own."""

    id: str
    name: str
    data_center_id: str
    description: str = ""
    comment: str = ""
    cpu_architecture: str = "x86_64"
    cpu_type: str = ""
