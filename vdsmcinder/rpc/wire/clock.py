# SPDX-License-Identifier: GPL-2.0-or-later
"""The one clock that events and statistics are stamped with, so that an engine can order them."""

from __future__ import annotations

import time


def monotonic_ms() -> int:
    """Milliseconds of the monotonic clock, which virt/'s samples carry too."""
    return time.monotonic_ns() // 1_000_000
