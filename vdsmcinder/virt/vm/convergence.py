# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done about a guest that writes faster than its memory is moved: a convergence schedule.

It is told of each pass over the guest's memory, and answers what to do. It is pure: no clock, no
libvirt.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

# Without a schedule, the longest downtime is come to in so many steps, one for each pass.
_STEPS = 5


class Deed(enum.Enum):
    """What can be done; engines' names."""

    SET_DOWNTIME = "setDowntime"
    AUTO_CONVERGE = "autoConverge"
    POST_COPY = "postcopy"
    ABORT = "abort"


@dataclass(frozen=True)
class Action:
    """One deed; downtime_ms is for SET_DOWNTIME: how long the guest may stand still at the end."""

    deed: Deed
    downtime_ms: int = 0


@dataclass(frozen=True)
class Stalling:
    """An action that is due after so many passes over the guest's memory.

    after_passes: -1 for what is done as soon as all before it was done in vain.
    """

    after_passes: int
    action: Action


@dataclass(frozen=True)
class Schedule:
    """What is done at the beginning, and what later, in this order."""

    init: Sequence[Action]
    stalling: Sequence[Stalling] = ()

    @property
    def post_copy(self) -> bool:
        """Whether post-copy may come to be used, for which a migration has to be prepared."""
        return Deed.POST_COPY in self._deeds

    @property
    def auto_converge(self) -> bool:
        """Whether the guest may be slowed down; libvirt is told at the beginning or never."""
        return Deed.AUTO_CONVERGE in self._deeds

    @property
    def _deeds(self) -> set[Deed]:
        return {a.deed for a in (*self.init, *(item.action for item in self.stalling))}

    @classmethod
    def by_steps(cls, max_downtime_ms: int) -> Schedule:
        """One that asks little of a guest which lets itself be moved with little.

        QEMU uses what downtime it may: a guest that could be moved with a fifth of it would stand
        still for all of it.
        """
        first, *later = (
            Action(Deed.SET_DOWNTIME, max(max_downtime_ms * n // _STEPS, 1))
            for n in range(1, _STEPS + 1)
        )
        return cls((first,), tuple(Stalling(n, action) for n, action in enumerate(later, 1)))


class Convergence:
    """How far a schedule has come in one migration."""

    def __init__(self, schedule: Schedule) -> None:
        self._left = list(schedule.stalling)
        self._first: int | None = None
        self._seen = 0

    def passed(self, iteration: int) -> list[Action]:
        """What is due now; iteration: QEMU's count of passes, which need not begin at 0."""
        if self._first is None:
            self._first = iteration
        passes = iteration - self._first
        if passes <= self._seen:
            return []
        self._seen = passes
        # One at a time, so that each has the next pass to show what it does.
        if self._left and self._left[0].after_passes < passes:
            return [self._left.pop(0).action]
        return []
