# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a VM's guest is frozen, and until when.

virt/vm/guest_agent.py alone changes it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class LateThaw:
    """A guest's file systems had to be thawed because nobody else did in time.

    frozen_s: how long they were to be frozen at most. failure: why they could not be thawed; None
    for those that were.
    """

    frozen_s: float
    failure: str | None = None


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
