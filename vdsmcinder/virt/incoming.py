# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on its way to this host: announced, copied by libvirt, and let run when its source says so.

virt/migrations.py makes one for VM.migrationCreate, and for each domain that libvirt has of a VM
that was on its way when the daemon started. Who may run the VM when is told in virt/migration.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Callable

import libvirt

from vdsmcinder.errors import MigrationFailed, ResourceUnavailable
from vdsmcinder.virt import lifecycle, metadata, migration_job
from vdsmcinder.virt.migration import Handover, Progress
from vdsmcinder.virt.migration_job import Situation
from vdsmcinder.virt.travel import Direction, Travel
from vdsmcinder.virt.vm import VM

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
_IS_WHOLE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)


class Incoming:
    """One migration to this host.

    source: where it comes from, in words. came: libvirt has a domain of it. silent: it is whole,
    and its source has not said for long that it may run. on_end: called with the VM's id when a
    copy that had come has ended here.
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
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            self._arrived()
        elif (event, detail) == _IS_WHOLE:
            self._stands()
        elif event in (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
            self.failed("libvirt ended it here: its copying broke off")
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
        """libvirt was gone: it may have ended what came, or have let it run."""
        try:
            now = await self._situation()
        except ResourceUnavailable:
            return
        if now is None and self.came:
            self.failed("it was lost when libvirtd ended")
        elif now is not None and now.state == libvirt.VIR_DOMAIN_RUNNING:
            self._arrived()
        elif now is not None and now.gone:
            self.failed("it was lost when libvirtd ended")
        elif now is not None and _is_whole(now.state, now.reason):
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
        until_s = asyncio.get_running_loop().time() + WHOLE_S
        while not self.over.is_set():
            self._woken.clear()
            try:
                if await self.vm.services.connection.on_domain(self.vm.id, _let_run):
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
        """The VM stays on its source: end the copy. Raises ResourceUnavailable (40)."""
        try:
            await self.vm.services.connection.on_domain(self.vm.id, _remove)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise ResourceUnavailable(
                    f"the copy of VM {self.vm.id} could not be ended: {e}"
                ) from e
        self.failed(why)

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

    def _arrived(self) -> None:
        """It runs here: what libvirt tells next, such as an I/O error, is for the VM itself."""
        if self.over.is_set():
            return
        self.over.set()
        self._let_go()
        vm = self.vm
        vm.migration = None
        self._travel.counts.over[Direction.IN, "ok"] += 1
        log.info("%s has arrived from %s", vm.name, self.source)
        vm.arrived(lifecycle.RUNNING)
        vm.spawn(self._read())

    async def _read(self) -> None:
        vm = self.vm
        try:
            vm.take_xml(await vm.services.connection.on_domain(vm.id, _unmark))
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s: its description could not be read: %s", vm.name, e)

    def failed(self, why: str) -> None:
        """It does not run here, and will not."""
        if self.over.is_set():
            return
        self.over.set()
        self._let_go()
        self.vm.migration = None
        self._travel.counts.over[Direction.IN, "failed"] += 1
        log.warning("%s did not arrive from %s: %s", self.vm.name, self.source, why)
        self.vm.apply(self.vm.wanted_exit or lifecycle.DID_NOT_ARRIVE)
        if self.came:
            self._on_end(self.vm.id)
            self._travel.spawn(self._undefine())

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
            return await self.vm.services.connection.on_domain(self.vm.id, _situation_here)
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise ResourceUnavailable(f"libvirt does not tell of VM {self.vm.id}: {e}") from e


def _is_whole(state: int, reason: int) -> bool:
    """Whether a domain stands, but no longer for its migration."""
    return state == libvirt.VIR_DOMAIN_PAUSED and reason not in _NOT_WHOLE


# What follows runs in the connection's thread pool.


def _situation_here(domain: libvirt.virDomain) -> Situation:
    # Of the migration itself libvirt tells on the source alone.
    state, reason = domain.state()
    return Situation(state, reason, busy=False)


def _let_run(domain: libvirt.virDomain) -> bool:
    """Whether it runs now: a copy that is whole stands, but no longer for its migration."""
    state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_RUNNING:
        return True
    if not _is_whole(state, reason):
        return False
    domain.resume()
    return True


def _remove(domain: libvirt.virDomain) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError as e:
        if e.get_error_code() not in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN):
            raise
    if domain.isPersistent():
        _forget(domain)


def _forget(domain: libvirt.virDomain) -> None:
    if not domain.isActive():
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def _unmark(domain: libvirt.virDomain) -> str:
    migration_job.set_mark(domain, metadata.NO_MIGRATION)
    text: str = domain.XMLDesc()
    return text
