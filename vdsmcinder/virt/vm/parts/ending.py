# SPDX-License-Identifier: GPL-2.0-or-later
"""How a VM is to end, as far as somebody here wants it to, and whether libvirt has told its end."""

from __future__ import annotations

import asyncio
import contextlib

from vdsmcinder.tasks import within
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change

# How long libvirt may take to tell of what it was called to do, in seconds.
EVENT_S = 2.0


class Ending:
    """The end of one VM. lock: held by the one VM.destroy that does it; others wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._wanted: Change | None = None
        self._doomed = False
        self._told = asyncio.Event()

    @property
    def wanted(self) -> Change | None:
        """The end that we asked for, which libvirt cannot tell from others."""
        return self._wanted

    @property
    def doomed(self) -> bool:
        """Whether the VM is being destroyed, and its domain removed."""
        return self._doomed

    def want(self, change: Change) -> None:
        """Its end is asked for: if it ends as a guest does, this is how it ended."""
        self._wanted = change

    def give_up(self) -> None:
        """The guest did not heed what it was asked: an end is its own again."""
        self._wanted = None

    def doom(self) -> None:
        """It is to be destroyed, whatever it is doing."""
        self._doomed = True

    def spare(self) -> None:
        """It could not be destroyed: it goes on, and its next end is its own, too."""
        self._doomed = False
        self._wanted = None

    def explained(self, change: Change) -> Change:
        """What libvirt tells, with what only we know: that we asked for it."""
        graceful = change in (lifecycle.GUEST_SHUT_DOWN, lifecycle.DESTROYED)
        return self._wanted if self._wanted is not None and graceful else change

    def told(self) -> None:
        """libvirt tells that the QEMU process has ended."""
        self._told.set()

    async def is_told(self) -> None:
        """Return when libvirt has told of the VM's end, or it takes oddly long to do so.

        It tells so on another connection than it is called on, and a VM that is created anew with
        the same uuid would be taken for the one that ended.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._told.wait(), EVENT_S)
