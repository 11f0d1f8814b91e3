# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on its way to this host: announced, copied by libvirt, and let run when its source says so.

In post-copy libvirt lets it run while the rest of its memory is on its way: it is Up then, and its
migration is not over.

virt/migration/migrations.py makes one for VM.migrationCreate, and for each domain that libvirt has
of a VM that was on its way when the daemon started. Who may run the VM when is told in
virt/vm/migration.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Callable

import libvirt

from vdsmcinder.errors import MigrationFailed, ResourceUnavailable, VMExists
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Direction, Travel
from vdsmcinder.virt.migration.common.migration_job import Situation
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Handover, Progress
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# A source says that its QEMU process has ended some milliseconds before libvirt here may be done.
WHOLE_S = 10.0
LOOK_S = 0.2
# libvirt begins to bring a VM so soon after it was announced, or its source has changed its mind.
COMES_S = 5.0
# By then a source whose daemon was restarted, or that could not be reached, has been heard of.
SILENT_S = 15.0
_FENCED = """vdsm-cinder call VM.migrationConclude vmID={vm_id} params='{{"verdict": "fenced"}}'"""
_NOT_WHOLE = frozenset(
    {
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        libvirt.VIR_DOMAIN_PAUSED_STARTING_UP,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
    }
)
_IN_POST_COPY = frozenset(
    {
        (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY),
        (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED),
    }
)
_ALL_CAME = (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
_IS_WHOLE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)


class Incoming:
    """One migration to this host.

    source: where it comes from, in words. came: libvirt has a domain of it. post_copy: its guest
    runs, and not all of its memory is here. silent: it is whole, and its source has not said for
    long that it may run. on_end: called with the VM's id when a copy that had come has ended here.
    """

    def __init__(  # noqa: PLR0917 - one for each thing that it is
        self,
        vm: VM,
        migration_id: str,
        handover: Handover,
        source: str,
        travel: Travel,
        on_end: Callable[[str], None],
    ) -> None:
        self.id = migration_id
        self.vm = vm
        self.handover = handover
        self.source = source
        self.came = False
        self.post_copy = False
        self.silent = False
        self.over = asyncio.Event()
        self.progress = Progress()
        self._travel = travel
        self._on_end = on_end
        self._woken = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._whole = False
        self._silence: asyncio.TimerHandle | None = None

    @property
    def words(self) -> str:
        return f"comes from {self.source}"

    @property
    def remedy(self) -> str:
        if self.post_copy:
            return "it runs already: call again when the rest of its memory has come"
        if not self._whole:
            return "call again when it has arrived; VM.migrateCancel on the other host ends that"
        return (
            "have vdsm-cinderd run there, which lets it run; or, if that host is lost for good, "
            f"see that it is off and call: {_FENCED.format(vm_id=self.vm.id)}"
        )

    @property
    def trouble(self) -> str:
        """That it has waited for long, and what to do, as a sentence; empty if it has not."""
        if not self.silent:
            return ""
        return (
            f"VM {self.vm.id} ({self.vm.name}) has come whole from {self.source} and stands still, "
            f"for that host has not said yet that it may run; {self.remedy}"
        )

    def expect(self) -> None:
        """Wait for libvirt to bring it, for so long as is configured."""
        loop, limit_s = asyncio.get_running_loop(), self._travel.options.arrival_timeout_s
        self._expiry = loop.call_later(limit_s, self._expired, limit_s)

    # What it is told

    def lifecycle(self, event: int, detail: int) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self.has_come()
        elif event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
            self._ended(lifecycle.from_event(event, detail))
        elif (event, detail) in _IN_POST_COPY:
            self._begin(time.monotonic())
            if detail == libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED:
                log.warning(
                    "%s runs here and waits for the rest of its memory, which does not come; its "
                    "source sees to that",
                    self.vm.name,
                )
        elif self.post_copy and (event, detail) != _ALL_CAME:
            change = lifecycle.from_event(event, detail)
            if change is not None:
                self.vm.apply(change)
            self.recheck()
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            if not self.post_copy:
                self.vm.guest_began(time.monotonic())
            self._arrived()
        elif (event, detail) == _IS_WHOLE:
            self._stands()
        self._woken.set()

    def recheck(self) -> None:
        self.vm.spawn(self._look_again())

    def has_come(self) -> None:
        """libvirt has begun to take it in."""
        self.came = True
        if self._expiry is not None:
            self._expiry.cancel()

    def _expired(self, limit_s: float) -> None:
        if not self.came:
            self.failed(f"it did not come within {limit_s:g} s")

    async def _look_again(self) -> None:
        """libvirt may have ended what came, or have let it run, and not have told."""
        try:
            now = await self._situation()
        except ResourceUnavailable:
            return
        if now is None:
            if self.came:
                self._ended(lifecycle.QEMU_LOST)
        elif now.gone:
            self._ended(lifecycle.from_state(now.state, now.reason))
        elif now.begun and now.busy:
            self._begin(None)
        elif self.post_copy or now.state == libvirt.VIR_DOMAIN_RUNNING:
            self._arrived()
        elif _is_whole(now.state, now.reason):
            self._stands()

    def _stands(self) -> None:
        """It is whole, and waits for its source to say that it may run."""
        if not self._whole and not self.over.is_set():
            self._whole = True
            self._silence = asyncio.get_running_loop().call_later(SILENT_S, self._not_told)

    def _not_told(self) -> None:
        self.silent = True
        log.warning("%s", self.trouble)

    # What its source says

    async def run(self) -> None:
        """The VM's QEMU process on the source has ended: let the copy run.

        Raises MigrationFailed (12) if there is no whole copy, ResourceUnavailable (40).
        """
        connection = self.vm.services.connection
        until_s = asyncio.get_running_loop().time() + WHOLE_S
        while not self.over.is_set():
            self._woken.clear()
            try:
                if await connection.on_domain(self.vm.id, _let_run, self.post_copy):
                    if not self.post_copy:
                        self.vm.guest_began(self.vm.began_here_s or time.monotonic())
                    return self._arrived()
            except libvirt.libvirtError as e:
                # libvirt has a domain here before it copies: without one nothing can become whole.
                if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    break
                log.warning("%s could not be let run: %s", self.vm.name, e)
            if asyncio.get_running_loop().time() > until_s:
                break
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)
        if self.post_copy and not self.over.is_set():
            await self._lose()
        if self.vm.migration is None and self.vm.running:
            return None
        raise MigrationFailed(
            f"VM {self.vm.id} did not arrive whole on this host, so it cannot run here"
        )

    async def require_whole(self) -> None:
        """Raise MigrationFailed (12) for anything but a copy that is whole and stands.

        Raises ResourceUnavailable (40).
        """
        now = await self._situation()
        if now is None or not _is_whole(now.state, now.reason):
            raise MigrationFailed(
                f"VM {self.vm.id} has not come whole to this host, so that it cannot run here; if "
                "the host that it comes from is off, VM.destroy it here and start it anew"
            )

    async def drop(self, why: str) -> None:
        """The VM stays on its source: end the copy.

        Raises VMExists (4) if its guest has begun to run here, ResourceUnavailable (40).
        """
        vm = self.vm
        try:
            if not await vm.services.connection.on_domain(vm.id, _drop):
                raise VMExists(f"VM {vm.id} runs on this host and is {vm.status.value}", vmId=vm.id)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise ResourceUnavailable(f"the copy of VM {vm.id} could not be ended: {e}") from e
        self.failed(why)

    async def _lose(self) -> None:
        """End what runs here without all of its memory, of which no more comes.

        Raises ResourceUnavailable (40).
        """
        vm = self.vm
        lost = vm.wanted_exit or lifecycle.POSTCOPY_FAILED
        vm.ending.want(lost)
        try:
            await vm.services.connection.on_domain(vm.id, migration_job.destroy)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise ResourceUnavailable(f"VM {vm.id} could not be ended: {e}") from e
        self._ended(lost)

    async def end(self) -> None:
        """Have it come, if it is about to: ended now, without a QEMU process, it would come later.

        Whoever destroys it ends that process then, and it stays on its source.
        """
        until_s = asyncio.get_running_loop().time() + COMES_S
        while not (self.came or self.over.is_set()):
            self._woken.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)
            if asyncio.get_running_loop().time() > until_s:
                self.failed("it was destroyed here before it came")

    # How it ends

    def _begin(self, at_s: float | None) -> None:
        """Its guest runs here, in post-copy. at_s: since when (monotonic clock), if known."""
        if self.post_copy or self.over.is_set():
            return
        self.post_copy = True
        self.vm.guest_began(at_s)
        self.has_come()
        log.info("%s runs here, and its memory follows from %s", self.vm.name, self.source)
        self.vm.arrived(lifecycle.RUNNING)

    def _arrived(self) -> None:
        """It runs here: what libvirt tells next, such as an I/O error, is for the VM itself."""
        if not self._is_over("ok"):
            return
        vm = self.vm
        log.info("%s has arrived from %s", vm.name, self.source)
        if not self.post_copy:
            vm.arrived(lifecycle.RUNNING)
        vm.spawn(self._read())

    async def _read(self) -> None:
        vm = self.vm
        try:
            vm.take_xml(await vm.services.connection.on_domain(vm.id, _unmark))
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s: its description could not be read: %s", vm.name, e)

    def _ended(self, how: Change | None) -> None:
        """There is no QEMU process of it here any more."""
        if not self.post_copy:
            self.failed("libvirt ended it here: its copying broke off")
        elif self._is_over("failed"):
            log.warning("%s ended here before all of its memory had come", self.vm.name)
            # Killed for that, it has not ended by itself.
            lost = self.vm.wanted_exit is lifecycle.POSTCOPY_FAILED
            self.vm.apply(lifecycle.POSTCOPY_FAILED if lost else how or lifecycle.QEMU_LOST)
            self._on_end(self.vm.id)

    def failed(self, why: str) -> None:
        """It does not run here, and will not."""
        if not self._is_over("failed"):
            return
        log.warning("%s did not arrive from %s: %s", self.vm.name, self.source, why)
        self.vm.apply(self.vm.wanted_exit or lifecycle.DID_NOT_ARRIVE)
        if self.came:
            self._on_end(self.vm.id)
            self._travel.tasks.spawn(self._undefine(), f"{self.vm.name} is undefined")

    def _is_over(self, outcome: str) -> bool:
        """Have it over; False if it was."""
        if self.over.is_set():
            return False
        self.over.set()
        self._let_go()
        self.vm.settles()
        self._travel.counts.over[Direction.IN, outcome] += 1
        return True

    async def _undefine(self) -> None:
        """What came last may have been made persistent; nobody is to start it by mistake."""
        try:
            await self.vm.services.connection.on_domain(self.vm.id, _forget)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.debug("no domain is left of %s: %s", self.vm.name, e)

    def _let_go(self) -> None:
        for timer in (self._expiry, self._silence):
            if timer is not None:
                timer.cancel()

    async def _situation(self) -> Situation | None:
        """How libvirt has it; None if it does not. Raises ResourceUnavailable."""
        try:
            return await self.vm.services.connection.on_domain(self.vm.id, migration_job.situation)
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise ResourceUnavailable(f"libvirt does not tell of VM {self.vm.id}: {e}") from e


def _is_whole(state: int, reason: int) -> bool:
    """Whether a domain stands, but no longer for its migration."""
    return state == libvirt.VIR_DOMAIN_PAUSED and reason not in _NOT_WHOLE


# What follows runs in the connection's thread pool.


def _let_run(domain: libvirt.virDomain, ran: bool) -> bool:
    """Whether it runs now: a copy that is whole stands, but no longer for its migration.

    ran: its guest has run; if it stands, that is not for having come here.
    """
    now = migration_job.situation(domain)
    if now.begun or ran:
        return not (now.busy or now.gone)
    if not _is_whole(now.state, now.reason):
        return False
    domain.resume()
    return True


def _drop(domain: libvirt.virDomain) -> bool:
    """End a copy; False if its guest has run, so that it is not to be ended."""
    if migration_job.situation(domain).begun:
        return False
    _remove(domain)
    return True


def _remove(domain: libvirt.virDomain) -> None:
    migration_job.destroy(domain)
    if domain.isPersistent():
        _forget(domain)


def _forget(domain: libvirt.virDomain) -> None:
    if not domain.isActive():
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def _unmark(domain: libvirt.virDomain) -> str:
    migration_job.set_mark(domain, metadata.NO_MIGRATION)
    text: str = domain.XMLDesc()
    return text
