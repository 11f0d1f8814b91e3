# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt tells of a VM while it is being started, which counts once that is done."""

from __future__ import annotations

import asyncio
import contextlib

from vdsmcinder.tasks import within
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change


class Starting:
    """The start of one VM."""

    def __init__(self) -> None:
        self._told: Change | None = None
        self._to_be_let_run = False
        self._is_told = asyncio.Event()

    @property
    def told(self) -> Change | None:
        """What libvirt told last, None for nothing yet."""
        return self._told

    def to_be_let_run(self) -> None:
        """QEMU starts paused and is let run before anybody is to know of it."""
        self._to_be_let_run = True

    def hides(self, change: Change) -> bool:
        """Whether this is that pause, which is none to anybody; libvirt may tell of it late."""
        return self._to_be_let_run and change is lifecycle.PAUSED_BY_US

    def tell(self, change: Change) -> None:
        """libvirt tells of a change, and of no earlier ones any more."""
        self._to_be_let_run = False
        self._told = change
        self._is_told.set()

    def over(self) -> None:
        """The VM is started: a pause is one."""
        self._to_be_let_run = False

    def forget(self) -> None:
        """What was told so far was of another VM of that uuid."""
        self._told = None
        self._is_told.clear()

    async def is_let_run(self, timeout_s: float) -> None:
        """Return when libvirt has told so, and with it of all that was before, or takes too long.

        It tells so on another connection than it is called on.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._is_told.wait(), timeout_s)
