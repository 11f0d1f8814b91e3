# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a VM's guest is frozen, and until when.

virt/vm/guest_agent.py alone changes it.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MARK = re.compile(r"(\S+) ([0-9]{1,12}(?:\.[0-9]{1,9})?)")


@dataclass(frozen=True)
class LateThaw:
    """A guest's file systems had to be thawed because nobody else did in time.

    frozen_s: how long they were to be frozen at most. failure: why they could not be thawed; None
    for those that were.
    """

    frozen_s: float
    failure: str | None = None


def thaw_mark(left_s: float) -> str:
    """How a domain's metadata say that its guest is to be thawed in so many seconds.

    By the time since this host booted, and which boot that was: the clock may be stepped meanwhile,
    and a guest must not stay frozen for as long. A QEMU process does not outlive its host's boot.
    """
    return f"{_boot_id()} {_since_boot_s() + left_s:.3f}"


def left_to_thaw_s(mark: str, most_s: float) -> float:
    """In how many seconds a guest is to be thawed that has this mark.

    most_s: for a mark that says nothing here, such as one of another host's.
    """
    match = _MARK.fullmatch(mark)
    if match is None or match[1] != _boot_id():
        return most_s
    return max(float(match[2]) - _since_boot_s(), 0.0)


def _boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()


def _since_boot_s() -> float:
    # It goes on while the host is suspended, unlike the monotonic clock.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Freezing:
    """The state of one guest.

    lock: one conversation with the guest's agent at a time. It is not the VM's own lock: an unplug
    that holds that one may wait for a guest that is frozen. late: set since the guest was thawed
    without being asked to, until somebody has been told.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.late: LateThaw | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limited(self) -> bool:
        """Whether the guest is frozen for a time, which has not passed."""
        return self._timer is not None

    def limit(self, timer: asyncio.TimerHandle) -> None:
        """The guest is frozen until the timer's time."""
        self.end()
        self.late = None
        self._timer = timer

    def begin(self) -> None:
        """The guest is about to be frozen: that it was thawed late before is forgotten."""
        self.late = None

    def thawed_late(self, late: LateThaw) -> None:
        """The guest had to be thawed, which somebody is to be told."""
        self.end()
        self.late = late

    def take_late(self) -> LateThaw | None:
        """That the guest was thawed without being asked to, if nobody has been told yet."""
        late, self.late = self.late, None
        return late

    def end(self) -> None:
        """The guest is not frozen any more, or is beyond help."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
