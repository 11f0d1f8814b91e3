# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on its way from this host to another: offered there, copied by libvirt, handed over.

virt/migration/migrations.py makes one for VM.migrate, and for each VM that was on its way when the
daemon started; virt/migration/handover.py finds out what came of it. Who may run the VM when is
told in virt/vm/migration.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    MigrationNotCancelled,
    NoMigration,
    ResourceUnavailable,
    VdsmCinderError,
)
from vdsmcinder.hypervisor import process
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration import copy_job, handover, migration_job, offer
from vdsmcinder.virt.migration.context import Travel
from vdsmcinder.virt.vm import event_log, libvirt_errors, lifecycle
from vdsmcinder.virt.vm.convergence import Action, Convergence, Deed, Schedule
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Handover, Peer, Phase, Progress
from vdsmcinder.virt.vm.migration_request import Address, MigrationRequest
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# libvirt's figures are looked at so often; engines hear of them less (progress_interval_s).
LOOK_S = 0.25
# While the guest stands still its QEMU process is looked at so often.
CLOSE_LOOK_S = 0.002
_SEE_LOGS = "that host's logs tell more, those of vdsm-cinderd and /var/log/libvirt/qemu"
_HANDED_OVER = frozenset(
    {
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY,
    }
)


class Outgoing:
    """One migration away from this host.

    stopped_s: when the guest was stopped to be handed over (monotonic clock), None if it was not as
    far as is known. may_run_there: it was, or may have been. ended: what libvirt tells of its
    QEMU's end. qemu: done when its QEMU process cannot run any more; None where that cannot be
    watched. turn: it may begin. halted: it is not to be copied, because it was cancelled or the VM
    does not run any more. cancelled: by an engine. failure: why the VM stayed, once it is over.
    running_ms: for how long the guest had been running there when that host was told so, None if it
    does not know.
    """

    def __init__(self, vm: VM, mark: MigrationMark, address: Address, travel: Travel) -> None:
        self.id = mark.id
        self.vm = vm
        self.mark = mark
        self.address = address
        self.travel = travel
        self.handover = Handover(mark.handover)
        self.phase = Phase.WAITING
        self.progress = Progress()
        self.stopped_s: float | None = None
        self.may_run_there = False
        self.ended: Change | None = None
        self.qemu: asyncio.Future[None] | None = None
        self.failure: VdsmCinderError | None = None
        self.running_ms: int | None = None
        self.over = asyncio.Event()
        self.woken = asyncio.Event()
        self.turn = asyncio.Event()
        self.halted = asyncio.Event()
        self.cancelled = False
        self._ended_for = ""
        self._peer: Peer | None = None
        self._convergence: Convergence | None = None
        self._bandwidth_mib_s: int | None = None
        self._began_s = time.monotonic()
        self._least = 2**63
        self._least_s = time.monotonic()
        self._moved_s = time.monotonic()

    @property
    def words(self) -> str:
        return f"migrates to {self.address}"

    @property
    def remedy(self) -> str:
        if self.progress.post_copy:
            return "it runs there already; call there when it has arrived"
        return "call again when it has arrived, or end that with VM.migrateCancel"

    @property
    def still_s(self) -> float:
        """For how long no data has moved, as far as libvirt tells, in seconds."""
        return time.monotonic() - self._moved_s

    @property
    def ended_by_itself(self) -> bool:
        """Whether its QEMU process has ended, and not because it had been copied."""
        return self.ended not in (None, lifecycle.MIGRATED_AWAY)

    async def peer(self) -> Peer:
        """The other host's daemon. Raises PeerUnreachable (10)."""
        if self._peer is None:
            self._peer = await self.travel.dial(self.address)
        return self._peer

    async def hang_up(self) -> None:
        """Let go of the connection to it, to have a new one next time."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    # What it is told

    def lifecycle(self, event: int, detail: int) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED and detail in _HANDED_OVER:
            self.stopped_s = self.stopped_s or time.monotonic()
            self.may_run_there = True
            if detail == libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY:
                self.runs_there()
            else:
                self.vm.spawn(self._watch_closely())
        elif event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
            self.ended = lifecycle.from_event(event, detail)
            self.halted.set()
        elif event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            # What libvirt had copied would run there, whoever stopped it here.
            self.halted.set()
        self.woken.set()

    def recheck(self) -> None:
        self.woken.set()

    def runs_there(self) -> None:
        """It has come to post-copy."""
        if not self.progress.post_copy:
            log.info("%s runs on host %s, and its memory follows", self.vm.name, self.address)
            self._tell(replace(self.progress, post_copy=True))

    def passed(self, iteration: int) -> None:
        """QEMU begins another pass over the guest's memory."""
        if self._convergence is not None and not self.progress.post_copy:
            for action in self._convergence.passed(iteration):
                self.vm.spawn(self._do(action))

    async def cancel(self) -> None:
        """End it; returns when the VM is known to stay. Raises MigrationNotCancelled (47)."""
        if self.phase is Phase.CONCLUDING or self.progress.post_copy:
            raise self._too_late()
        await self._stop()
        if not self.over.is_set():
            raise MigrationNotCancelled(
                f"the migration of VM {self.vm.id} was told to end and has not yet; "
                "VM.getMigrationStatus tells what comes of it"
            )
        if self.failure is None:
            raise self._too_late()

    async def end(self) -> None:
        # Post-copy ends with the QEMU process, which is killed next.
        if not self.progress.post_copy:
            await self._stop()

    async def _stop(self) -> None:
        """Have it end; returns when it has, or has not within the time of a call of libvirt's."""
        self.cancelled = True
        self._ended_for = "the migration was cancelled"
        self.halted.set()
        until_s = time.monotonic() + self.travel.connection.call_timeout_s
        while not self.over.is_set() and time.monotonic() < until_s:
            # Again and again: libvirt forgets what it was told before it has begun.
            if self.phase is Phase.COPYING:
                await self._abort()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.over.wait(), LOOK_S)

    def _too_late(self) -> MigrationNotCancelled:
        return MigrationNotCancelled(
            f"VM {self.vm.id} runs on host {self.address} or is about to; migrate it back from "
            "there"
        )

    async def _abort(self) -> None:
        try:
            await self.vm.call(libvirt.virDomain.abortJob)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            # There is nothing to end yet, or nothing any more: what comes of it will be seen.
            log.debug("the migration of %s could not be aborted: %s", self.vm.name, e)

    async def limit_bandwidth(self, mib_s: int) -> None:
        """Change how much data may go, in MiB/s, 0 for as much as can.

        Raises NoMigration (81) before and after the copying, MigrationFailed (12).
        """
        if self.phase is not Phase.COPYING:
            raise NoMigration(f"VM {self.vm.id} {self.phase.value}: it has no data to limit now")
        # What libvirt is told before it copies gives way to what it began with.
        self._bandwidth_mib_s = mib_s
        if self.progress.transferred:
            await self._limit()

    async def _limit(self) -> None:
        mib_s, self._bandwidth_mib_s = self._bandwidth_mib_s, None
        await self.vm.command(
            migration_job.set_speed, mib_s, doing="limited in migrating", failure=MigrationFailed
        )

    # What it does

    async def prepare(self, request: MigrationRequest) -> bool:
        """Have the other host accept the VM; whether its data is to be encrypted.

        Raises TooManyMigrations (82) if it has to wait, PeerUnreachable (10), and what the other
        host's checks raise; the VM stays then.
        """
        self.phase = Phase.OFFERED
        peer = await self.peer()
        encrypted = await offer.offer(self, request, peer)
        self.mark = replace(self.mark, encrypted=encrypted)
        await self.vm.command(
            migration_job.depart,
            self.mark.values(),
            self.vm.running_since_s,
            doing="migrated",
            failure=MigrationFailed,
        )
        return encrypted

    async def copy(self, request: MigrationRequest, *, encrypted: bool) -> None:
        """Have libvirt copy it, and find out what came of that."""
        self.phase = Phase.COPYING
        self._convergence = Convergence(request.schedule)
        self._watch_qemu()
        for action in request.schedule.init:
            await self._do(action)
        await self._settled(copy_job.begin(self, request, encrypted=encrypted))

    async def called_off(self, why: VdsmCinderError) -> None:
        """It does not come to be copied: the VM stays, as it is."""
        try:
            change, xml = await self.vm.services.connection.on_domain(self.vm.id, handover.stay)
            self.vm.take_xml(xml)
        except (libvirt.libvirtError, ResourceUnavailable):
            change = lifecycle.RUNNING
        if self._peer is not None:
            self.spawn(handover.drop(self))
        self.stays(self.ended or change, why)

    async def adopt(self) -> None:
        """Take up one that was under way when the daemon ended."""
        self.phase = Phase.COPYING
        # If it was stopped for the handover, that was told while nobody listened.
        self.may_run_there = True
        # The engine's schedule went with the daemon that knew it.
        self._convergence = Convergence(Schedule.by_steps(self.travel.options.max_downtime_ms))
        self._watch_qemu()
        await self._settled(None)

    async def _settled(self, call: asyncio.Task[None] | None) -> None:
        self._least_s = time.monotonic()
        watching = asyncio.create_task(self._watch())
        try:
            await handover.settle(self, call)
        finally:
            watching.cancel()
            if self.qemu is not None:
                self.qemu.cancel()

    def _watch_qemu(self) -> None:
        try:
            self.qemu = process.ended(self.vm.pid)
        except (OSError, ValueError) as e:
            log.debug("%s: its QEMU process is not watched: %s", self.vm.name, e)

    async def _watch_closely(self) -> None:
        """The guest stands until its QEMU process here can run no more: see that when it is so."""
        pid, pause_s = self.vm.pid, CLOSE_LOOK_S
        while self.qemu is not None and not self.qemu.done():
            if not process.can_run(pid):
                self.qemu.set_result(None)
                return
            await asyncio.sleep(pause_s)
            # What takes longer is a handover that has failed.
            pause_s = min(pause_s * 1.05, LOOK_S)

    async def _watch(self) -> None:
        """Look at libvirt's figures, tell engines of them, and end what does not come forward."""
        told_s = 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                found = await self.vm.call(migration_job.progress, self.progress)
            except (libvirt.libvirtError, ResourceUnavailable):
                continue
            # Within each pass it becomes less; what counts is whether it was ever so little.
            if 0 < found.remaining < self._least:
                self._least, self._least_s = found.remaining, time.monotonic()
            if found.transferred != self.progress.transferred:
                self._moved_s = time.monotonic()
            self.progress = replace(found, post_copy=self.progress.post_copy)
            if self._bandwidth_mib_s is not None and found.transferred:
                await self._limit()
            if time.monotonic() - told_s >= self.travel.options.progress_interval_s:
                told_s = time.monotonic()
                self.travel.on_progress(self.vm, self.progress)
            await self._end_if_it_stalls()

    async def _end_if_it_stalls(self) -> None:
        limit_s = self.travel.options.stall_timeout_s
        if self.progress.post_copy or not limit_s or time.monotonic() - self._least_s < limit_s:
            return
        self._least_s = time.monotonic()
        log.warning("%s has not come nearer to %s for %g s", self.vm.name, self.address, limit_s)
        self._ended_for = (
            f"it had not come nearer for {limit_s:g} s (option migration.stall_timeout_s); see to "
            "the network between the hosts, or have the guest write less"
        )
        await self._abort()

    async def _do(self, action: Action) -> None:
        """Do what the schedule says; what libvirt refuses is logged, and the next may help."""
        calls: dict[Deed, tuple[Any, ...]] = {
            Deed.SET_DOWNTIME: (migration_job.set_downtime, action.downtime_ms),
            Deed.POST_COPY: (migration_job.start_post_copy,),
            Deed.ABORT: (libvirt.virDomain.abortJob,),
        }
        if action.deed not in calls:
            return
        log.info("%s: %s %s", self.vm.name, action.deed.value, action.downtime_ms or "")
        if action.deed is Deed.ABORT:
            self._ended_for = self._ended_for or "its convergence schedule ended it"
        try:
            await self.vm.call(*calls[action.deed])
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s: %s was refused: %s", self.vm.name, action.deed.value, e)

    # How it ends

    def handed_over(self) -> None:
        """The other host says that the VM runs there."""
        if self.stopped_s is None or (self.progress.post_copy and self.running_ms is None):
            return
        stopped_ms = round((time.monotonic() - self.stopped_s) * 1000)
        downtime_ms = max(stopped_ms - (self.running_ms or 0), 1)
        self.progress = replace(self.progress, downtime_ms=downtime_ms)

    def left(self) -> None:
        """The VM is away, and nothing of it is left here but its definition."""
        now = time.monotonic()
        counts = self.travel.counts
        counts.bytes_sent += self.progress.transferred
        counts.downtime_ms += self.progress.downtime_ms
        counts.time_ms += round((now - self._began_s) * 1000)
        self._tell(replace(self.progress, percent=100))
        log.info(
            "%s runs on host %s after %s; it stood still for %s",
            self.vm.name,
            self.address,
            event_log.span(now - self._began_s),
            event_log.span(self.progress.downtime_ms / 1000),
        )
        self.finish(lifecycle.migrated_to(str(self.address)))

    def stays(self, change: Change | None, why: VdsmCinderError) -> None:
        """The VM stays on this host, or ended here. change: to its status; None if it has none."""
        level = logging.INFO if self.cancelled else logging.WARNING
        log.log(level, "%s stays: %s", self.vm.name, why.message)
        self.failure = why
        self.finish(change)

    def finish(self, change: Change | None) -> None:
        """It is over: libvirt's events are the VM's own again."""
        self.phase = Phase.OVER
        self.vm.migration = None
        if change is not None:
            self.vm.apply(change)
        self.over.set()

    def explain(self, failure: BaseException | None) -> VdsmCinderError:
        """Why the VM stays, in words for an engine. failure: of libvirt's copying."""
        action = f"VM {self.vm.id} was not migrated to host {self.address}"
        if reason := self._reason():
            return MigrationFailed(f"{action}: {reason}")
        if isinstance(failure, libvirt.libvirtError):
            drives = self.vm.domain.drives
            return libvirt_errors.explain(failure, action, MigrationFailed, drives, _SEE_LOGS)
        if isinstance(failure, VdsmCinderError):
            return MigrationFailed(f"{action}: {failure.message}")
        return MigrationFailed(f"{action}: libvirt ended the migration and does not tell why")

    def _reason(self) -> str:
        """What libvirt does not tell, or only by what came of it; empty if it is to be asked."""
        if self._ended_for:
            return self._ended_for
        if self.ended_by_itself and self.ended is not None and self.ended.exit is not None:
            return f"it ended meanwhile: {self.ended.exit.message}"
        if self.vm.io.code is not None:
            disks = ", ".join(sorted(self.vm.io.disks))
            return (
                f"QEMU paused it for an I/O error ({self.vm.io.code.value}) on {disks}; migrate it "
                "again when its storage is back"
            )
        if self.phase in (Phase.WAITING, Phase.OFFERED):
            return "it was paused before its turn came; have it run, and migrate it again"
        return ""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that may outlast the VM's stay on this host."""
        self.travel.spawn(work)

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
        self.travel.on_progress(self.vm, progress)
