# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of I/O errors that made QEMU pause a VM: which disks, and what kind of error.

It is empty again when the VM goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from vdsmcinder.tasks import within
from vdsmcinder.virt.vm.status import PauseCode

# Pauses between two tries to continue a VM, in seconds.
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0
# A try was in vain if the VM is paused again this soon: its time-out for OSDs has to pass for it.
_VAIN_S = 60.0


class IoTrouble:
    """The I/O errors of one VM since its CPUs last ran.

    code: EIO or ENOSPC; None for no error. disks: target names. count: of all errors so far.
    held: an operator wants the VM to stay paused even when its storage is back.
    awaited: somebody waits for the storage.
    """

    def __init__(self, held: bool) -> None:
        self.code: PauseCode | None = None
        self.disks: set[str] = set()
        self.count = 0
        self.held = held
        self.awaited = False
        self._may_be_back = asyncio.Event()
        self._tried_s: float | None = None
        self._vain = 0

    def met(self, disk: str, code: PauseCode) -> None:
        """A disk's I/O failed, and QEMU pauses the VM for it."""
        self.count += 1
        self.disks.add(disk)
        self.code = code

    def lacks_room(self) -> None:
        """It is for want of room in a pool that the I/O failed, whatever QEMU was told."""
        self.code = PauseCode.ENOSPC

    def tried(self, now_s: float) -> None:
        """The VM is continued. now_s: monotonic clock."""
        self._tried_s = now_s

    def first_pause_s(self, now_s: float) -> float:
        """How long to wait, in seconds, before the VM, paused just now, is continued.

        Longer after each try in vain: what Ceph answers us may not be true of the VM's own client,
        and its status is not to change each second. now_s: monotonic clock.
        """
        vain = self._tried_s is not None and now_s - self._tried_s < _VAIN_S
        self._vain = self._vain + 1 if vain else 0
        return float(min(FIRST_PAUSE_S * 2**self._vain, MAX_PAUSE_S))

    def over(self) -> None:
        """The VM's CPUs run again, or never will."""
        self.code = None
        self.disks.clear()

    def hold(self) -> None:
        """An operator wants the VM to stay paused."""
        self.held = True

    def let_go(self) -> None:
        """An operator has let the VM run."""
        self.held = False

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[None]:
        """Somebody waits for the storage; nobody else need to."""
        self.awaited = True
        try:
            yield
        finally:
            self.awaited = False

    def storage_may_be_back(self) -> None:
        """Let whoever waits for the storage look at once."""
        self._may_be_back.set()

    async def wait_for_storage(self, timeout_s: float) -> None:
        """Return when somebody says that the storage may be back, or the time is up."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._may_be_back.wait(), timeout_s)
        self._may_be_back.clear()
