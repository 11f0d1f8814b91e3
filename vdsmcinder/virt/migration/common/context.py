# SPDX-License-Identifier: GPL-2.0-or-later
"""What migrations work with, and what they count."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Callable

from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.kept_marks import KeptMarks
from vdsmcinder.virt.vm.migration import Dial, Progress, Source
from vdsmcinder.virt.vm.vm import VM


class Direction(enum.Enum):
    """Which way a VM went."""

    OUT = "out"
    IN = "in"


@dataclass
class Counts:
    """Migrations that are over, by direction and outcome; what those that left this host took."""

    over: Counter[tuple[Direction, str]] = field(default_factory=Counter)
    bytes_sent: int = 0
    downtime_ms: int = 0
    time_ms: int = 0


@dataclass(frozen=True)
class Travel:
    """here: this host, as others reach it. on_progress: called while a VM leaves.

    tasks: owns all that is under way for VMs that come or go. marks: on images of VMs that stay.
    """

    connection: Connection
    secrets: Secrets
    options: MigrationOptions
    dial: Dial
    here: Source
    on_progress: Callable[[VM, Progress], None]
    tasks: Tasks
    counts: Counts
    marks: KeptMarks
