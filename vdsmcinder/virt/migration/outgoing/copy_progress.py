# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's figures tell of a copy: how far it is, whether it stalls, what is due for it.

It is pure: the time comes in, in seconds of the monotonic clock, and actions go out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from vdsmcinder.virt.migration.common.table import Note
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.vm.convergence import Convergence, Deed, Schedule
from vdsmcinder.virt.vm.migration import Progress


class CopyProgress:
    """One copy. progress: how far it is. ended_for: why it was made to end, in words; or empty.

    stall_timeout_s: what does not come nearer for so long is ended, 0 for never.
    interval_s: between two events that tell engines how far it is.
    """

    def __init__(
        self, name: str, schedule: Schedule, stall_timeout_s: float, interval_s: float
    ) -> None:
        self.progress = Progress()
        self.ended_for = ""
        self._name = name
        self._convergence = Convergence(schedule)
        self._stall_timeout_s = stall_timeout_s
        self._interval_s = interval_s
        self._limit_mib_s: int | None = None
        self._least = 2**63
        self._least_s = 0.0
        self._moved_s = 0.0
        self._told_s: float | None = None

    def began(self, now_s: float) -> None:
        """libvirt begins to copy, or is found at it."""
        self._least_s = self._moved_s = now_s

    def still_s(self, now_s: float) -> float:
        """For how long no data has moved, as far as libvirt tells."""
        return now_s - self._moved_s

    def found(self, now: Progress, now_s: float) -> list[ev.Action]:
        """Take in libvirt's figures."""
        # Within each pass it becomes less; what counts is whether it was ever so little.
        if 0 < now.remaining < self._least:
            self._least, self._least_s = now.remaining, now_s
        if now.transferred != self.progress.transferred:
            self._moved_s = now_s
        # libvirt was asked some time ago: what was seen since is not unlearned.
        known = self.progress
        self.progress = replace(now, post_copy=known.post_copy, downtime_ms=known.downtime_ms)
        actions: list[ev.Action] = []
        if self._limit_mib_s is not None and now.transferred:
            actions.append(ev.SetSpeed(self._limit_mib_s))
            self._limit_mib_s = None
        if self._told_s is None or now_s - self._told_s >= self._interval_s:
            self._told_s = now_s
            actions.append(ev.Publish(self.progress))
        return actions

    def stalls(self, now_s: float) -> bool:
        """Whether it is to be ended for not coming nearer; ended_for says so then."""
        limit_s = self._stall_timeout_s
        if self.progress.post_copy or not limit_s or now_s - self._least_s < limit_s:
            return False
        self._least_s = now_s
        self.ended_for = (
            f"it had not come nearer for {limit_s:g} s (option migration.stall_timeout_s); see to "
            "the network between the hosts, or have the guest write less"
        )
        return True

    def passed(self, iteration: int) -> list[ev.Action]:
        """QEMU begins another pass over the guest's memory: what the schedule has for that."""
        if self.progress.post_copy:
            return []
        steps = self._convergence.passed(iteration)
        if any(step.deed is Deed.ABORT for step in steps):
            self.ended_for = self.ended_for or "its convergence schedule ended it"
        return [ev.TakeStep(step) for step in steps]

    def limit(self, mib_s: int | None) -> None:
        """What libvirt is told before it copies gives way to what it began with: keep it so long.

        mib_s: None to forget what was asked for before.
        """
        self._limit_mib_s = mib_s

    def limit_not_set(self, why: str) -> Sequence[ev.Action]:
        """The bandwidth stays as it was."""
        text = f"{self._name}: its bandwidth could not be limited ({why}); the limit before holds"
        return [Note(logging.WARNING, text)]

    def runs_there(self) -> list[ev.Action]:
        """The guest runs on the other host: post-copy."""
        if self.progress.post_copy:
            return []
        return self._publish(replace(self.progress, post_copy=True))

    def handed_over(self, stood_s: float, running_ms: int | None) -> None:
        """The guest stood still for so long, but for what it had been running there by then."""
        if self.progress.post_copy and running_ms is None:
            return
        downtime_ms = max(round(stood_s * 1000) - (running_ms or 0), 1)
        self.progress = replace(self.progress, downtime_ms=downtime_ms)

    def done(self) -> list[ev.Action]:
        """All of it is there."""
        return self._publish(replace(self.progress, percent=100))

    def _publish(self, progress: Progress) -> list[ev.Action]:
        self.progress = progress
        return [ev.Publish(progress)]
