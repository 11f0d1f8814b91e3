# SPDX-License-Identifier: GPL-2.0-or-later
"""Ids and times, as all entities have them."""

from __future__ import annotations

import time
import uuid

# That of the template from which VMs without one are made; oVirt's clients know it.
BLANK = "00000000-0000-0000-0000-000000000000"


def new_id() -> str:
    """A random UUID in lower case."""
    return str(uuid.uuid4())


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
