# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on its way to this host: the shell around machine.py.

libvirt's events and what its source says become the machine's events, and its actions calls of
libvirt. What is a fact of the migration is the machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import Callable

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    PeerUnreachable,
    ResourceUnavailable,
    Unexpected,
    VdsmCinderError,
    VMExists,
)
from vdsmcinder.tasks import within
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Direction, Travel
from vdsmcinder.virt.migration.common.migration_job import Situation
from vdsmcinder.virt.migration.common.runner import Runner
from vdsmcinder.virt.migration.incoming import events as ev
from vdsmcinder.virt.migration.incoming.events import Seen
from vdsmcinder.virt.migration.incoming.machine import LOOK_S, IncomingMachine
from vdsmcinder.virt.vm import cpu_limit, lifecycle
from vdsmcinder.virt.vm.migration import PeerRefused, Progress, Source
from vdsmcinder.virt.vm.migration_request import Address
from vdsmcinder.virt.vm.vm import VM, described

log = logging.getLogger(__name__)

_NOT_WHOLE = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
)

_RESUMED = {
    libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY: ev.RunsEarly(),
    libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED: ev.RunsEarly(waits=True),
}
_ALL_CAME = libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED
_STANDS = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
_OF_LIBVIRT = (ev.Whole, ev.Runs, ev.Told, ev.Ended)


class Incoming:
    """One migration to this host, which is under way while run() is.

    source: where it comes from. on_arrival: called with the VM when it runs here and its domain
    says so. on_end: called with the VM's id when a copy that had come has ended here. on_kept:
    called with this migration when its source keeps the VM, so that the copy is to be ended.
    """

    def __init__(
        self,
        vm: VM,
        migration_id: str,
        source: Source,
        travel: Travel,
        *,
        on_arrival: Callable[[VM], None],
        on_end: Callable[[str], None],
        on_kept: Callable[[Incoming], Awaitable[None]],
    ) -> None:
        self.id = migration_id
        self.vm = vm
        self.source = source.words
        self.progress = Progress()
        self._travel = travel
        self._on_arrival = on_arrival
        self._on_end = on_end
        self._on_kept = on_kept
        self._source = source
        self._over = asyncio.Event()
        self._reply: asyncio.Future[None] | None = None
        self._machine = IncomingMachine(vm.id, vm.name, source.words)
        self._runner = self._make_runner()

    @property
    def came(self) -> bool:
        """Whether libvirt has a domain of it."""
        return self._machine.came

    @property
    def words(self) -> str:
        return f"comes from {self.source}"

    @property
    def remedy(self) -> str:
        return self._machine.remedy

    @property
    def trouble(self) -> str:
        """That it has waited for long, and what to do, as a sentence; empty if it has not."""
        return self._machine.trouble

    # What it is told

    def expect(self) -> None:
        """Its source has offered it: wait for libvirt to bring it, for so long as is configured."""
        self._runner.feed(ev.Announced(self._travel.options.arrival_timeout_s))

    def has_come(self) -> None:
        """libvirt has begun to take it in, some time ago: look how far that is."""
        self._runner.feed(ev.Comes())
        self.recheck()

    def lifecycle(self, event: int, detail: int) -> None:
        self._runner.feed(_event(event, detail))

    def recheck(self) -> None:
        self._runner.feed(ev.Stirred())

    async def let_run(self) -> None:
        """The VM's QEMU process on the source has ended: let the copy run.

        Raises MigrationFailed (12) if there is no whole copy, ResourceUnavailable (40).
        """
        if self._over.is_set():
            if self._machine.verdict is not None:
                raise self._machine.verdict
            return
        if self._reply is None:
            self._reply = asyncio.get_running_loop().create_future()
        self._runner.feed(ev.RunAsked())
        await asyncio.shield(self._reply)

    async def require_whole(self) -> None:
        """Raise MigrationFailed (12) for anything but a copy that is whole and stands.

        Raises ResourceUnavailable (40).
        """
        if (await self._look_up()).seen is not Seen.WHOLE:
            raise MigrationFailed(
                f"VM {self.vm.id} has not come whole to this host, so that it cannot run here; if "
                "the host that it comes from is off, VM.destroy it here and start it anew"
            )

    async def drop(self, why: str) -> None:
        """The VM stays on its source: end the copy. why: in words.

        Raises VMExists (4) if its guest has begun to run here, ResourceUnavailable (40).
        """
        vm = self.vm
        try:
            if not await vm.services.connection.on_domain(vm.id, _drop):
                raise VMExists(f"VM {vm.id} runs on this host and is {vm.status.value}", vmId=vm.id)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise ResourceUnavailable(f"the copy of VM {vm.id} could not be ended: {e}") from e
        self._runner.feed(ev.Dropped(why))
        await self._over.wait()

    async def end(self) -> None:
        """Have it come, if it is about to; returns when it has, or will not.

        Whoever destroys it ends its QEMU process then, and it stays on its source.
        """
        self._runner.feed(ev.DestroyAsked())
        while not (self.came or self._over.is_set()):
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._over.wait(), LOOK_S)

    async def over(self) -> None:
        """As virt/vm/migration.py has it."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._over.wait(), self._travel.connection.call_timeout_s)

    async def run(self) -> None:
        """Return when it is over, or when the daemon ends."""
        try:
            await self._runner.run()
        finally:
            if self._reply is not None:
                self._reply.cancel()

    # What it does

    def _make_runner(self) -> Runner:
        vm = self.vm
        return Runner(
            self._machine,
            {
                ev.Reply: self._answer,
                ev.Began: self._began,
                ev.Apply: self._apply,
                ev.Arrive: lambda _: vm.arrived(lifecycle.RUNNING),
                ev.Release: self._release,
                ev.Read: self._read,
                ev.CleanUp: self._clean_up,
                ev.GiveUp: self._give_up,
            },
            {
                ev.Look: self._look,
                ev.TryToRun: self._try_to_run,
                ev.Kill: self._kill,
                ev.AskSource: self._ask_source,
            },
            lasting=ev.LASTING,
            failed=self._failed,
            tasks=self._travel.tasks.group(f"{vm.name} comes"),
        )

    def _answer(self, reply: ev.Reply) -> None:
        told, self._reply = self._reply, None
        if told is None or told.done():
            return
        if reply.error is None:
            told.set_result(None)
        else:
            told.set_exception(reply.error)

    def _began(self, began: ev.Began) -> None:
        self.vm.guest_began(time.monotonic() if began.known else None)

    def _apply(self, apply: ev.Apply) -> None:
        asked = self.vm.wanted_exit if apply.asked else None
        self.vm.apply(asked or apply.change)

    def _release(self, release: ev.Release) -> None:
        self.vm.settles()
        if release.ok:
            # The same share of another host's processors.
            self.vm.spawn(cpu_limit.enforce(self.vm))
        self._travel.counts.over[Direction.IN, "ok" if release.ok else "failed"] += 1
        self._over.set()
        # What has been said since it was over is about the VM alone.
        for event in self._runner.unread():
            if isinstance(event, ev.RunAsked):
                self._answer(ev.Reply(self._machine.verdict))
            elif isinstance(event, _OF_LIBVIRT) and event.change is not None:
                self.vm.happened(event.change)

    def _clean_up(self, clean_up: ev.CleanUp) -> None:
        self._on_end(self.vm.id)
        if clean_up.undefine:
            self._travel.tasks.spawn(self._undefine(), f"{self.vm.name} is undefined")

    def _read(self, _: ev.Read) -> None:
        self._travel.tasks.spawn(self._unmark(), f"{self.vm.name} is read")

    async def _unmark(self) -> None:
        vm = self.vm
        try:
            vm.take(await vm.services.connection.on_domain(vm.id, _unmark, self.id))
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s: its description could not be read: %s", vm.name, e)
        else:
            self._on_arrival(vm)

    async def _undefine(self) -> None:
        """What came last may have been made persistent; nobody is to start it by mistake."""
        try:
            await self.vm.services.connection.on_domain(self.vm.id, _forget)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.debug("no domain is left of %s: %s", self.vm.name, e)

    def _give_up(self, _: ev.GiveUp) -> None:
        # Not the migration's own task: that ends with it.
        self._travel.tasks.spawn(self._is_kept(), f"the copy of {self.vm.name} is ended")

    async def _is_kept(self) -> None:
        try:
            await self._on_kept(self)
        except VdsmCinderError as e:
            log.warning("%s: %s", self.vm.name, e.message)

    async def _ask_source(self, _: ev.AskSource) -> ev.Event:
        answer = await self._ask(self._source.address)
        if isinstance(answer, ev.SourceSilent):
            # What it could not say it may have left on the images.
            with contextlib.suppress(VdsmCinderError):
                if await self.who_keeps() is not None:
                    return ev.SourceSays(kept=True)
        return answer

    async def _ask(self, address: Address | None) -> ev.SourceSays | ev.SourceSilent:
        if address is None:
            return ev.SourceSilent("its daemon's address is not known")
        try:
            peer = await self._travel.dial(address)
            try:
                return ev.SourceSays(await peer.keeps(self.vm.id, self.id))
            finally:
                await peer.close()
        except (PeerRefused, PeerUnreachable) as e:
            return ev.SourceSilent(e.message)

    async def who_keeps(self) -> str | None:
        """Who keeps the VM, as its images say; None if they do not.

        Raises MigrationFailed (12), ImageNotFound (13), ResourceUnavailable (40).
        """
        return await self._travel.marks.found(self.vm.domain.ceph, self.id, MigrationFailed)

    async def _look(self, _: ev.Look) -> ev.Event | None:
        try:
            return await self._look_up()
        except ResourceUnavailable:
            return None

    async def _look_up(self) -> ev.Looked:
        """How libvirt has it. Raises ResourceUnavailable (40)."""
        vm = self.vm
        try:
            now = await vm.services.connection.on_domain(vm.id, migration_job.situation)
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return ev.Looked(Seen.ABSENT)
            raise ResourceUnavailable(f"libvirt does not tell of VM {vm.id}: {e}") from e
        return ev.Looked(_seen(now), lifecycle.from_state(now.state, now.reason))

    async def _try_to_run(self, attempt: ev.TryToRun) -> ev.Event:
        vm = self.vm
        try:
            runs = await vm.services.connection.on_domain(vm.id, _let_run, attempt.ran)
        except libvirt.libvirtError as e:
            # libvirt has a domain here before it copies: without one nothing can become whole.
            gone = e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
            return ev.NotThere() if gone else ev.NotYet(str(e))
        except ResourceUnavailable as e:
            return ev.NotPossible(e)
        return ev.LetRun() if runs else ev.NotYet()

    async def _kill(self, _: ev.Kill) -> ev.Event:
        vm = self.vm
        try:
            await vm.services.connection.on_domain(vm.id, migration_job.destroy)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                return ev.NotKilled(ResourceUnavailable(f"VM {vm.id} could not be ended: {e}"))
        except ResourceUnavailable as e:
            return ev.NotKilled(e)
        return ev.Killed()

    def _failed(self, action: ev.Action, error: Exception) -> ev.Event | None:
        """What an action led to that failed as none should; an error of this daemon's."""
        if isinstance(action, ev.TryToRun):
            return ev.NotYet(repr(error))
        if isinstance(action, ev.Kill):
            why = f"VM {self.vm.id} could not be ended, for an error of this daemon's: {error!r}"
            return ev.NotKilled(Unexpected(why))
        if isinstance(action, ev.AskSource):
            return ev.SourceSilent(f"an error of this daemon's: {error!r}")
        return None


def _event(event: int, detail: int) -> ev.Event:
    """A lifecycle event of the domain, as the machine is told it."""
    change = lifecycle.from_event(event, detail)
    if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
        return ev.Comes()
    if event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
        return ev.Ended(change)
    if event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
        return _RESUMED.get(detail) or ev.Runs(detail == _ALL_CAME, change)
    return ev.Whole(change) if (event, detail) == _STANDS else ev.Told(change)


def _seen(now: Situation) -> Seen:
    """What a situation means on the destination."""
    if now.gone:
        return Seen.GONE
    if now.begun and now.busy:
        return Seen.RUNS_EARLY
    if now.state == libvirt.VIR_DOMAIN_RUNNING:
        return Seen.RUNS
    return Seen.WHOLE if _is_whole(now) else Seen.STANDS


def _is_whole(now: Situation) -> bool:
    """Whether a domain stands, but no longer for its migration."""
    return now.state == libvirt.VIR_DOMAIN_PAUSED and now.reason not in _NOT_WHOLE


# What follows runs in the connection's thread pool.


def _let_run(domain: libvirt.virDomain, ran: bool) -> bool:
    """Whether it runs now: a copy that is whole stands, but no longer for its migration.

    ran: its guest has run; if it stands, that is not for having come here.
    """
    now = migration_job.situation(domain)
    if now.begun or ran:
        return not (now.busy or now.gone)
    if not _is_whole(now):
        return False
    domain.resume()
    return True


def _drop(domain: libvirt.virDomain) -> bool:
    """End a copy; False if its guest has run, so that it is not to be ended."""
    if migration_job.situation(domain).begun:
        return False
    migration_job.destroy(domain)
    if domain.isPersistent():
        _forget(domain)
    return True


def _forget(domain: libvirt.virDomain) -> None:
    if not domain.isActive():
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def _unmark(domain: libvirt.virDomain, migration_id: str) -> Document:
    owed = metadata.write_debts(_taken_over(described(domain).domain.metadata))
    values = {**metadata.NO_MIGRATION, metadata.ARRIVED_BY: migration_id, metadata.OWED: owed}
    migration_job.set_mark(domain, values)
    return described(domain)


def _taken_over(kept: metadata.VmMetadata) -> Iterator[metadata.Debt]:
    """What its source owed for it, of which this host is to tell others now.

    Its copy here, if there was one, went when it was offered again. And whoever runs it by mistake,
    it is not this host that is to give way, to which it has come by right.
    """
    here = None if kept.migration is None else kept.migration.peer
    return (replace(debt, may_yield=False) for debt in kept.debts if debt.peer != here)
