# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt tells of all domains: read when a connection stands, and then event by event.

Domains without our metadata are never touched and never listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

import libvirt

from vdsmcinder import logs
from vdsmcinder.errors import ResourceUnavailable, Unexpected, VdsmCinderError
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain.domain import Document, is_ours
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm import exit_record, guest_agent, lifecycle, power
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.status import Cause
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# How often the domains are read again because some of them changed meanwhile.
READINGS = 10
# The pause before they are read again because that failed, in seconds.
RETRY_S = 1.0
# The event that tells that libvirt begins to take in a domain of another host.
_COMES = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED)


@dataclass(frozen=True)
class Found:
    """A domain of ours as libvirt lists it; its document, or why that cannot be read."""

    uuid: str
    document: Document | VdsmCinderError
    state: int
    reason: int


class DomainWatch:
    """Brings the VMs of the registry up to what libvirt tells.

    recovered: False until libvirt's domains have been read for the first time.
    unread: domains that are ours and that make no sense to us: by uuid, why not.
    """

    def __init__(
        self,
        connection: Connection,
        registry: Registry,
        secrets: Secrets,
        migrations: Migrations,
        tasks: Tasks,
    ) -> None:
        self.recovered = False
        self.unread: Mapping[str, str] = {}
        self._connection = connection
        self._registry = registry
        self._secrets = secrets
        self._migrations = migrations
        self._tasks = tasks
        self._heard_of: set[str] = set()
        # One recovery at a time: what one has read is older than what the next has told.
        self._recovering = asyncio.Lock()

    @property
    def taken(self) -> list[str]:
        """Of each VM that stays paused, for another host has opened its image, a sentence."""
        return [f"VM {vm.id} ({vm.name}): {vm.taken}" for vm in self._registry.vms() if vm.taken]

    async def close(self) -> None:
        """End all tasks."""
        await self._tasks.close()

    async def recover(self) -> None:
        """Read all our domains: at start, and after libvirt was gone.

        Raises libvirt.libvirtError and ResourceUnavailable (40), such as when libvirt goes away
        again: then not all are known, and it is to be called again.
        """
        async with self._recovering:
            await self._read_all()

    async def _read_all(self) -> None:
        await self._secrets.restore()
        # Those that are created meanwhile may be missing in what is found.
        known = {vm.id: vm for vm in self._registry.vms() if not vm.starting}
        found = await self._read_domains()
        if any(map(_on_its_way, found)) and await self._migrations.prepare():
            # What is read is taken over at once, or an event between the two would be lost.
            found = await self._read_domains()
        unread = {}
        for domain in found:
            logs.vm_id.set(domain.uuid)
            try:
                await self._take_over(domain)
            except ResourceUnavailable:
                # libvirt has gone, or does not answer: the domain itself may be all right.
                raise
            except VdsmCinderError as e:
                # One that a newer daemon may have defined must not keep us from all the others.
                log.error("domain %s is ours and cannot be read: %s", domain.uuid, e)
                unread[domain.uuid] = e.message
        for uuid in set(known) - {domain.uuid for domain in found}:
            logs.vm_id.set(uuid)
            known[uuid].gone()
        logs.vm_id.set(None)
        self.unread = unread
        self.recovered = True
        vms = self._registry.vms()
        log.info("%d VMs, %d of them running", len(vms), sum(vm.running for vm in vms))

    async def _recover_while_up(self) -> None:
        """Recover; if that fails, again until it does not, or the connection does it anyway."""
        while self._connection.ready:
            try:
                return await self.recover()
            except (libvirt.libvirtError, ResourceUnavailable) as e:
                log.error("what libvirt runs cannot be read: %s; trying on", e)
            await asyncio.sleep(RETRY_S)

    async def _read_domains(self) -> list[Found]:
        """Our domains as they are now, and not older than what events told meanwhile."""
        for _ in range(READINGS):
            self._heard_of.clear()
            found = await self._connection.call(_list_domains, self._connection.handle)
            if not self._heard_of:
                break
        return found

    async def _take_over(self, domain: Found) -> None:
        """Bring a VM up to what libvirt tells of its domain. Raises VdsmCinderError."""
        if isinstance(domain.document, VdsmCinderError):
            raise domain.document
        change = lifecycle.from_state(domain.state, domain.reason)
        vm = self._registry.find(domain.uuid)
        if vm is None or (not vm.running and not vm.doomed and change.cause is not Cause.STOPPED):
            # Down is final: one that somebody else has started again is another VM to engines.
            vm = self._registry.make(domain.uuid, domain.document)
            ended = change.cause is Cause.STOPPED and exit_record.recorded(vm.domain.metadata)
            try:
                travels = not ended and await self._migrations.take_up(vm, domain.document)
            except BaseException:
                vm.end()
                raise
            self._registry.enlist(vm)
            if travels:
                return
        elif vm.starting:
            return
        elif vm.migration is not None:
            vm.migration.recheck()
            return
        if change.cause is Cause.STOPPED:
            change = exit_record.recorded(vm.domain.metadata) or change
        if domain.document.domain.metadata.starting is not None:
            if change is lifecycle.PAUSED_BY_US:
                self._registry.go_on_starting(vm, domain.document)
                return
            if change is lifecycle.RUNNING:
                vm.spawn(power.has_started(vm))
        vm.found(domain.document, change)
        self._migrations.debts.found(vm)
        guest_agent.recover(vm)

    def event_handlers(self) -> dict[int, Callable[..., None]]:
        """What takes libvirt's events, by their ids, for Connection.start()."""
        return {
            libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: self._on_lifecycle,
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT: self._on_reboot,
            libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: self._on_io_error,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: self._on_agent,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED: self._on_device_added,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: self._on_device_removed,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED: self._on_device_removal_failed,
            libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION: self._on_iteration,
        }

    def _of_event(self, uuid: str) -> VM | None:
        """The VM that an event is about; log lines that the event causes are marked with it."""
        logs.vm_id.set(uuid)
        return self._registry.find(uuid)

    async def _stranger(self, uuid: str) -> None:
        try:
            document = await self._connection.on_domain(uuid, _ours)
        except (libvirt.libvirtError, VdsmCinderError) as e:
            log.warning("a domain that comes from another host cannot be read: %s", e)
            return
        if self._registry.find(uuid) is None and document is not None:
            vm = self._registry.make(uuid, document)
            self._registry.enlist(vm)
            self._migrations.arrivals.stranger(vm)

    def _on_lifecycle(self, uuid: str, event: int, detail: int) -> None:
        self._heard_of.add(uuid)
        vm = self._of_event(uuid)
        if vm is None:
            if (event, detail) == _COMES:
                self._tasks.spawn(self._stranger(uuid), f"read {uuid}, which comes")
            return
        change = lifecycle.from_event(event, detail)
        if change is not None and change.cause is Cause.STOPPED:
            vm.ending.told()
        if vm.migration is not None:
            vm.migration.lifecycle(event, detail)
            return
        if event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED and not (vm.running or vm.doomed):
            log.warning("%s was removed from libvirt by somebody else", vm.name)
            self._registry.forget(vm)
            return
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED and not (vm.running or vm.doomed):
            log.warning("%s was started again by somebody else", vm.name)
            self._tasks.spawn(self._recover_while_up(), "read what libvirt runs")
            return
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            vm.process_began()
        if change is not None:
            vm.happened(change)

    def _on_iteration(self, uuid: str, iteration: int) -> None:
        if self._of_event(uuid) is not None:
            self._migrations.departures.passed(uuid, iteration)

    def _on_reboot(self, uuid: str) -> None:
        vm = self._of_event(uuid)
        if vm is None:
            return
        if vm.domain.metadata.destroy_on_reboot and vm.running and vm.migration is None:
            vm.spawn(power.end_instead_of_reboot(vm))
        else:
            vm.happened(lifecycle.RUNNING)

    def _on_io_error(self, uuid: str, path: str, alias: str, action: int, reason: str) -> None:
        vm = self._of_event(uuid)
        if vm is not None:
            log.warning("%s: I/O error on disk %s (%s): %s", vm.name, alias, path, reason)
            if action == libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE:
                vm.io_error(alias, reason)

    def _on_agent(self, uuid: str, _state: int, _reason: int) -> None:
        vm = self._of_event(uuid)
        if vm is not None and vm.running:
            vm.spawn(vm.refresh())

    def _on_device_added(self, uuid: str, _alias: str) -> None:
        vm = self._of_event(uuid)
        # Whoever plugs it looks then; but a daemon that was killed meanwhile may have plugged it.
        if vm is not None and vm.running and not vm.lock.locked():
            vm.spawn(vm.refresh())

    def _on_device_removed(self, uuid: str, alias: str) -> None:
        vm = self._of_event(uuid)
        if vm is not None:
            vm.device_removed(alias)

    def _on_device_removal_failed(self, uuid: str, alias: str) -> None:
        vm = self._of_event(uuid)
        if vm is not None:
            vm.unplugs.kept(alias)


def _on_its_way(domain: Found) -> bool:
    document = domain.document
    return isinstance(document, Document) and document.domain.metadata.migration is not None


# What follows runs in the connection's thread pool.


def _list_domains(handle: libvirt.virConnect) -> list[Found]:
    found = []
    for domain in handle.listAllDomains():
        try:
            xml = domain.XMLDesc()
            state, reason = domain.state()
        except libvirt.libvirtError as e:
            # It ended between the list and the look.
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                continue
            raise
        document = _readable(xml)
        if document is not None:
            _forbid_autostart(domain)
            found.append(Found(domain.UUIDString(), document, state, reason))
    return found


def _forbid_autostart(domain: libvirt.virDomain) -> None:
    """Who starts a VM is its engine: with this host's boot it may run on another host already."""
    try:
        if domain.autostart():
            domain.setAutostart(0)
            log.warning("%s was set to start with the host, and is not any more", domain.name())
    except libvirt.libvirtError as e:
        # It ended since it was listed, or is a transient one that somebody else has made.
        log.info("whether a domain starts with the host is not known: %s", e)


def _readable(xml: str) -> Document | VdsmCinderError | None:
    """A domain's document, or why it cannot be read; None if the domain is not ours."""
    try:
        return Document.read(xml) if is_ours(xml) else None
    except VdsmCinderError as e:
        return e
    except Exception as e:
        # A fault of the daemon's own must not keep it from all the other VMs.
        log.exception("a domain's document cannot be read")
        return Unexpected(f"its document cannot be read: {type(e).__name__}: {e}")


def _ours(domain: libvirt.virDomain) -> Document | None:
    """The domain's document, if it is ours."""
    xml = domain.XMLDesc()
    return Document.read(xml) if is_ours(xml) else None
