# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on its way from this host to another: the shell around machine.py.

libvirt's events and engines' wishes become the machine's events, and its actions calls of libvirt
and of the other host's daemon. What is a fact of the migration is the machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    MigrationNotCancelled,
    NoMigration,
    ResourceUnavailable,
    TooManyMigrations,
    Unexpected,
    VdsmCinderError,
)
from vdsmcinder.hypervisor import process
from vdsmcinder.tasks import within
from vdsmcinder.virt.domain.metadata import Debt, MigrationMark
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Travel
from vdsmcinder.virt.migration.common.runner import Runner
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing import offer
from vdsmcinder.virt.migration.outgoing.copy_job import CopyJob
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.migration.outgoing.machine import OutgoingMachine
from vdsmcinder.virt.migration.outgoing.other_host import OtherHost
from vdsmcinder.virt.migration.outgoing.source_domain import SourceDomain
from vdsmcinder.virt.migration.outgoing.states import Plan
from vdsmcinder.virt.vm import event_log, lifecycle
from vdsmcinder.virt.vm.convergence import Schedule
from vdsmcinder.virt.vm.migration import Handover, Phase, Progress
from vdsmcinder.virt.vm.migration_request import Address, MigrationRequest
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# libvirt's figures are looked at so often, in seconds, and a cancel is repeated so often.
LOOK_S = 0.25


class Outgoing:
    """One migration away from this host, which is under way while run() is.

    request: as it was asked for; None for one that another daemon began. answer: what VM.migrate
    is to answer, None when the other host has accepted the VM or it waits. debts: takes what the
    other host is still to be told when this is over.
    """

    def __init__(
        self,
        vm: VM,
        mark: MigrationMark,
        address: Address,
        travel: Travel,
        *,
        debts: Debts,
        request: MigrationRequest | None = None,
    ) -> None:
        self.id = mark.id
        self.vm = vm
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._mark = mark
        self._travel = travel
        self._debts = debts
        self._request = request
        self._other = OtherHost(travel.dial, address)
        self._domain = SourceDomain(vm)
        self._job = CopyJob(vm, self._other, travel.connection, travel.options.libvirt_uri)
        self._machine = OutgoingMachine(_plan(vm, mark, address, travel, request), time.monotonic())
        self._over = asyncio.Event()
        self._runner = self._make_runner()

    # What is known of it

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._machine.progress

    @property
    def failure(self) -> VdsmCinderError | None:
        """Why the VM stayed or was lost, once it is over."""
        return self._machine.failure

    @property
    def outcome(self) -> str:
        """How it went, once it is over."""
        if self.failure is None:
            return "ok"
        return "cancelled" if self._machine.cancelled else "failed"

    @property
    def words(self) -> str:
        return f"migrates to {self._other.address}"

    @property
    def remedy(self) -> str:
        if self.progress.post_copy:
            return "it runs there already; call there when it has arrived"
        return "call again when it has arrived, or end that with VM.migrateCancel"

    # What it is told

    def its_turn(self) -> None:
        """Not too many others leave: it may."""
        self._runner.feed(ev.Turn())

    def found(self) -> None:
        """It was under way when the daemon started."""
        self._runner.feed(ev.Found())

    def waits(self) -> None:
        """VM.migrate is answered, for it may take long until it is its turn."""
        self._answer(ev.Answer())

    def passed(self, iteration: int) -> None:
        """QEMU begins another pass over the guest's memory."""
        self._runner.feed(ev.Passed(iteration))

    def lifecycle(self, event: int, detail: int) -> None:
        self._runner.feed(_event(event, detail))

    def recheck(self) -> None:
        self._runner.feed(ev.Stirred())

    async def cancel(self) -> None:
        """End it; returns when the VM is known to stay. Raises MigrationNotCancelled (47)."""
        if self._machine.phase is Phase.CONCLUDING or self.progress.post_copy:
            raise self._too_late()
        await self._insist(ev.Cancelled())
        if not self._over.is_set():
            raise MigrationNotCancelled(
                f"the migration of VM {self.vm.id} was told to end and has not yet; "
                "VM.getMigrationStatus tells what comes of it"
            )
        if self.failure is None:
            raise self._too_late()

    async def end(self) -> None:
        # Post-copy ends with the QEMU process, which is killed next.
        if self.progress.post_copy:
            self._runner.feed(ev.Doomed())
        else:
            await self._insist(ev.Doomed())

    async def over(self) -> None:
        """As virt/vm/migration.py has it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._over.wait(), self._travel.connection.call_timeout_s)

    async def _insist(self, event: ev.Cancelled | ev.Doomed) -> None:
        """Have it end; returns when it has, or has not within the time of a call of libvirt's."""
        until_s = time.monotonic() + self._travel.connection.call_timeout_s
        while not self._over.is_set() and time.monotonic() < until_s:
            # Again and again: libvirt forgets what it was told before it has begun.
            self._runner.feed(event)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._over.wait(), LOOK_S)

    def _too_late(self) -> MigrationNotCancelled:
        return MigrationNotCancelled(
            f"VM {self.vm.id} runs on host {self._other.address} or is about to; migrate it back "
            "from there"
        )

    async def limit_bandwidth(self, mib_s: int) -> None:
        """Change how much data may go, in MiB/s, 0 for as much as can.

        Raises NoMigration (81) before and after the copying, MigrationFailed (12).
        """
        phase = self._machine.phase
        if phase is not Phase.COPYING:
            raise NoMigration(f"VM {self.vm.id} {phase.value}: it has no data to limit now")
        if not self.progress.transferred:
            self._runner.feed(ev.LimitAsked(mib_s))
            return
        await self._job.set_speed(mib_s)
        self._runner.feed(ev.LimitSet())

    async def run(self) -> None:
        """Return when it is over; libvirt goes on with what it copies if this is cancelled."""
        try:
            await self._runner.run()
        finally:
            self.answer.cancel()
            await self._other.hang_up()

    # What it does at once

    def _make_runner(self) -> Runner:
        return Runner(
            self._machine,
            {
                ev.Answer: self._answer,
                ev.Publish: self._publish,
                ev.Owe: self._owe,
                ev.Left: self._left,
                ev.Release: self._release,
            },
            {
                ev.Offer: self._offer,
                ev.Mark: self._set_mark,
                ev.Watch: self._watch,
                ev.WatchClosely: self._watch_closely,
                ev.Copy: self._copy,
                ev.ResumeCopy: lambda resume: self._job.go_on(
                    self._mark, break_off=resume.break_off
                ),
                ev.TakeStep: lambda take: self._job.take(take.step),
                ev.SetSpeed: self._set_speed,
                ev.Abort: lambda _: self._job.abort(),
                ev.Look: lambda _: self._domain.look(),
                ev.Say: lambda say: self._other.say(self.vm.id, self.id, say.verdict),
                ev.Suspend: lambda _: self._domain.suspend(),
                ev.Stay: self._stay,
                ev.DestroyHere: lambda _: self._domain.destroy(),
            },
            lasting=ev.LASTING,
            failed=self._failed,
            tasks=self._travel.tasks.group(f"{self.vm.name} leaves"),
        )

    def _answer(self, answer: ev.Answer) -> None:
        if self.answer.done():
            return
        if answer.error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(answer.error)

    def _publish(self, publish: ev.Publish) -> None:
        self._travel.on_progress(self.vm, publish.progress)

    def _owe(self, owed: ev.Owe) -> None:
        self._debts.owe(self.vm, self._debt(owed))

    def _debt(self, owed: ev.Owe) -> Debt:
        return Debt(
            self.id,
            str(self._other.address),
            owed.verdict.value,
            owed.may_yield,
            owed.may_run,
        )

    def _left(self, left: ev.Left) -> None:
        progress, counts = self.progress, self._travel.counts
        counts.bytes_sent += progress.transferred
        counts.downtime_ms += progress.downtime_ms
        counts.time_ms += round(left.took_s * 1000)
        log.info(
            "%s runs on host %s after %s; it stood still for %s",
            self.vm.name,
            self._other.address,
            event_log.span(left.took_s),
            event_log.span(progress.downtime_ms / 1000),
        )

    def _release(self, release: ev.Release) -> None:
        vm = self.vm
        vm.settles()
        asked = vm.wanted_exit if release.asked else None
        vm.apply(asked or release.change)
        self._over.set()
        # What libvirt has told since is about the VM alone.
        for event in self._runner.unread():
            if isinstance(event, (ev.Stopped, ev.Ended, ev.Stirred)) and event.change is not None:
                vm.happened(event.change)

    # What takes time

    async def _offer(self, _: ev.Offer) -> ev.Event:
        assert self._request is not None, "another daemon's has been offered"
        try:
            peer = await self._other.peer()
            self._runner.feed(ev.Reached())
            accepted = await offer.offer(self.vm, self._mark, self._request, peer, self._travel)
        except TooManyMigrations as e:
            return ev.Busy(e.message)
        except VdsmCinderError as e:
            return ev.Refused(e)
        return ev.Accepted(accepted)

    async def _set_mark(self, mark: ev.Mark) -> ev.Event:
        self._mark = replace(self._mark, encrypted=mark.encrypted)
        try:
            await self.vm.command(
                migration_job.depart,
                self._mark.values(),
                self.vm.running_since_s,
                doing="migrated",
                failure=MigrationFailed,
            )
        except VdsmCinderError as e:
            return ev.NotMarked(e)
        return ev.Marked()

    async def _watch(self, _: ev.Watch) -> None:
        """Tell of libvirt's figures again and again, and of the end of QEMU here."""
        end = self._qemu_end()
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                with contextlib.suppress(libvirt.libvirtError, ResourceUnavailable):
                    known = self._machine.progress
                    self._runner.feed(ev.Figures(await self.vm.call(migration_job.progress, known)))
        finally:
            if end is not None:
                end.cancel()

    def _qemu_end(self) -> asyncio.Future[None] | None:
        try:
            end = process.ended(self.vm.pid)
        except (OSError, ValueError) as e:
            log.debug("%s: its QEMU process is not watched: %s", self.vm.name, e)
            return None
        end.add_done_callback(self._qemu_ended)
        return end

    def _qemu_ended(self, end: asyncio.Future[None]) -> None:
        if not end.cancelled():
            self._runner.feed(ev.QemuGone())

    async def _watch_closely(self, _: ev.WatchClosely) -> ev.Event:
        await process.cannot_run(self.vm.pid)
        return ev.QemuGone()

    async def _copy(self, copy: ev.Copy) -> ev.Event:
        assert self._request is not None, "another daemon's copy is under way already"
        return await self._job.copy(self._request, self._mark, copy.first)

    async def _set_speed(self, speed: ev.SetSpeed) -> ev.Event:
        try:
            await self._job.set_speed(speed.mib_s)
        except VdsmCinderError as e:
            return ev.LimitNotSet(e.message)
        return ev.LimitSet()

    async def _stay(self, stay: ev.Stay) -> ev.Event:
        more = [] if stay.owes is None else [self._debt(stay.owes)]
        owed = self._debts.written(self.vm, *more)
        return await self._domain.stay(resume=stay.resume, owed=owed)

    def _failed(self, action: ev.Action, error: Exception) -> ev.Event | None:
        """What an action led to that failed as none should; an error of this daemon's."""
        why = Unexpected(f"VM {self.vm.id} stays, for an error of this daemon's: {error!r}")
        told: dict[type, ev.Event] = {
            ev.Offer: ev.Refused(why),
            ev.Mark: ev.NotMarked(why),
            ev.Copy: ev.CallEnded(why, repr(error)),
            ev.ResumeCopy: ev.CallEnded(why, repr(error)),
            ev.SetSpeed: ev.LimitNotSet(repr(error)),
            ev.Look: ev.Looked(None),
            ev.Say: ev.Unreached(why),
            ev.Suspend: ev.Suspended(),
            ev.Stay: ev.NotKnown(repr(error)),
            ev.DestroyHere: ev.NotDestroyed(repr(error)),
        }
        return told.get(type(action))


def _plan(
    vm: VM, mark: MigrationMark, address: Address, travel: Travel, request: MigrationRequest | None
) -> Plan:
    options = travel.options
    # The engine's schedule went with the daemon that knew it.
    anew = Schedule.by_steps(options.max_downtime_ms)
    return Plan(
        vm.id,
        vm.name,
        str(address),
        Handover(mark.handover),
        anew if request is None else request.schedule,
        options.stall_timeout_s,
        options.progress_interval_s,
        travel.connection.call_timeout_s,
    )


def _event(event: int, detail: int) -> ev.Event:
    """A lifecycle event of the domain, as the machine is told it."""
    change = lifecycle.from_event(event, detail)
    if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
        if detail == libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED:
            return ev.StoppedForHandover()
        if detail == libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY:
            return ev.RunsThere()
        # What libvirt had copied would run there, whoever stopped it here.
        return ev.Stopped(change)
    if event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
        assert change is not None, "each of them changes a VM's status"
        return ev.Ended(change)
    return ev.Stirred(change)
