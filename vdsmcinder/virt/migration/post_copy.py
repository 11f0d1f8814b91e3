# SPDX-License-Identifier: GPL-2.0-or-later
"""Going on with a post-copy that broke off: the VM runs on the other host, its memory is on both.

virt/migration/handover.py has a Recovery for each migration. As long as both QEMU processes live
nothing is lost: each keeps its half, and the guest waits for memory that is not there. Often the
connection comes to life by itself when the network is back. When QEMU has given it up, the source
has libvirt make another (VIR_MIGRATE_POSTCOPY_RESUME), again and again.
https://www.qemu.org/docs/master/devel/migration/postcopy.html#postcopy-recovery

QEMU takes part in that only while its main loop runs, and the main loop itself may wait for memory
of the guest that is not there: then libvirt's call hangs, and that VM can only be destroyed. So a
connection that may yet come to life is left alone for as long as TCP may take to try again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import libvirt

from vdsmcinder.errors import MigrationFailed, PeerUnreachable, ResourceUnavailable, VMExists
from vdsmcinder.virt.migration import copy_job, migration_job
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.migration import PeerRefused, Verdict, error_of

if TYPE_CHECKING:
    from vdsmcinder.virt.migration.outgoing import Outgoing

log = logging.getLogger(__name__)

# No data for so long is worth a question.
STILL_S = 5.0
# TCP tries again every 2 minutes at least. Of a connection that is dead after that QEMU learns from
# its kernel after 15 minutes, or from us.
DEAD_S = 150.0
# Pauses between two tries, in seconds.
FIRST_RETRY_S = 0.2
MOST_RETRY_S = 5.0


class CopyEnded(Exception):
    """The VM does not run on the other host any more."""


class Recovery:
    """All tries to go on with one migration."""

    def __init__(self, going: Outgoing) -> None:
        self._going = going
        self._pause_s = FIRST_RETRY_S
        self._transferred = 0
        self._told = False
        self._reached_s: float | None = None

    async def attempt(self, failure: BaseException | None) -> asyncio.Task[None] | None:
        """libvirt's call that goes on with it; None if that cannot be tried now.

        failure: of the call before. Raises CopyEnded.
        """
        self._see_progress()
        self._tell(failure)
        await self._pause()
        if not await self._runs_there():
            self._reached_s = None
            return None
        self._reached_s = self._reached_s or time.monotonic()
        if min(self._going.still_s, time.monotonic() - self._reached_s) >= DEAD_S:
            await self._have_qemu_notice()
        return copy_job.resume(self._going)

    def _see_progress(self) -> None:
        transferred = self._going.progress.transferred
        if transferred != self._transferred:
            self._transferred, self._pause_s, self._told = transferred, FIRST_RETRY_S, False

    def _tell(self, failure: BaseException | None) -> None:
        if self._told:
            return
        self._told = True
        why = (
            libvirt_errors.own_words(failure)
            if isinstance(failure, libvirt.libvirtError)
            else failure
        )
        log.warning(
            "%s runs on host %s, but the rest of its memory does not get there (%s); trying on",
            self._going.vm.name,
            self._going.address,
            why or "no data moves",
        )

    async def _pause(self) -> None:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, MOST_RETRY_S)
        qemu = self._going.qemu
        if qemu is None:
            await asyncio.sleep(pause_s)
        else:
            await asyncio.wait({qemu}, timeout=pause_s)

    async def _runs_there(self) -> bool:
        """Whether the other host says so; False if it does not say. Raises CopyEnded.

        It is told to forget the VM, for it refuses that if the VM has begun to run there.
        """
        going = self._going
        try:
            await (await going.peer()).conclude(going.vm.id, going.id, Verdict.DROP)
        except PeerRefused as e:
            error = error_of(e, f"VM {going.vm.id}: host {going.address}", MigrationFailed)
            if isinstance(error, VMExists):
                return True
            log.debug("%s: %s", going.vm.name, error.message)
            return False
        except PeerUnreachable as e:
            await going.hang_up()
            log.debug("%s: %s", going.vm.name, e.message)
            return False
        raise CopyEnded

    async def _have_qemu_notice(self) -> None:
        try:
            await self._going.vm.call(migration_job.break_off_post_copy)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            # It has noticed.
            log.debug("%s: post-copy was not broken off: %s", self._going.vm.name, e)
