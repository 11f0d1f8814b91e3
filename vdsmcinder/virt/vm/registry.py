# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this host: found again in libvirt, created, looked up and removed.

daemon.py builds it; rpc/ asks it for VMs; libvirt's events reach VMs through it. Domains without
our metadata are never touched and never listed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Callable

import libvirt

from vdsmcinder import logs
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.config import Libvirt as LibvirtOptions
from vdsmcinder.config import Vms as VmOptions
from vdsmcinder.errors import (
    CreateFailed,
    NoSuchVM,
    ResourceUnavailable,
    VdsmCinderError,
    VMExists,
)
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.hypervisor.xmldoc import aside
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain.create_request import DomainRequest, VmDocument, make_domain
from vdsmcinder.virt.domain.domain import Document, is_ours
from vdsmcinder.virt.domain.vm_description import VmDescription
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.image_locks import Claims
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import (
    event_log,
    exit_record,
    guest_agent,
    io_resume,
    libvirt_errors,
    lifecycle,
    power,
)
from vdsmcinder.virt.vm.freeze_state import LateThaw
from vdsmcinder.virt.vm.status import Cause, ExitReason
from vdsmcinder.virt.vm.vm import VM, Services

log = logging.getLogger(__name__)

# How often the domains are read again because some of them changed meanwhile.
READINGS = 10
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


class Registry:
    """All VMs that are ours, by uuid.

    recovered: False until libvirt's domains have been read for the first time. unread: domains that
    are ours and that make no sense to us: by name, why not. virt/migration/migrations.py sets
    these: on_travelling, awaited with a VM that is found when the daemon starts, and its document;
    it gives True if it takes care of it. on_stranger, called with a VM that comes from another host
    unannounced. on_pass, called when QEMU begins another pass over the memory of a VM that leaves.
    """

    def __init__(
        self,
        connection: Connection,
        secrets: Secrets,
        ceph: Workers,
        preflight: Preflight,
        *,
        libvirt_options: LibvirtOptions,
        vm_options: VmOptions,
        on_change: Callable[[VM], None],
        on_thaw: Callable[[VM, LateThaw], None],
        tasks: Tasks,
    ) -> None:
        self.recovered = False
        self.unread: Mapping[str, str] = {}
        self._heard_of: set[str] = set()
        # One recovery at a time: what one has read is older than what the next has told.
        self._recovering = asyncio.Lock()
        self._connection = connection
        self._options = vm_options
        self._vms: dict[str, VM] = {}
        self._tasks = tasks
        self._services = Services(
            connection,
            secrets,
            ceph,
            preflight,
            vm_options,
            libvirt_options.start_timeout_s,
            self._changed,
            on_thaw,
            tasks,
        )
        self._on_change = on_change
        self.on_travelling: Callable[[VM, Document], Awaitable[bool]] = _does_not_travel
        self.on_stranger: Callable[[VM], None] = _nothing
        self.on_pass: Callable[[str, int], None] = _nothing
        connection.on_up = self._recover
        connection.event_handlers = self._event_handlers()

    # Looking up

    def get(self, vm_id: str) -> VM:
        """The VM of that uuid, in any case; NoSuchVM (1) if there is none."""
        vm = self.find(vm_id)
        if vm is None:
            raise NoSuchVM(
                f"there is no VM {vm_id} on this host; Host.getVMList lists those that there are",
                vmId=vm_id,
            )
        return vm

    def find(self, vm_id: str) -> VM | None:
        """The VM of that uuid, or None."""
        return self._vms.get(vm_id) or self._vms.get(vm_id.lower())

    def vms(self) -> list[VM]:
        """All VMs, those that are Down included."""
        return list(self._vms.values())

    def any_running(self) -> bool:
        """Whether any VM is not Down."""
        return any(vm.running for vm in self._vms.values())

    # Creating and removing

    async def create(self, vm_id: str, request: VmDocument | VmDescription) -> VM:
        """Define a VM and begin to start it; returns it as WaitForLaunch.

        vm_id: in lower case. Raises VMExists (4), CreateFailed (9), ResourceUnavailable (40), and
        what make_domain and the preflight raise.
        """
        self._refuse_second(vm_id)
        xml = request.xml if isinstance(request, VmDocument) else ""
        domain, document = await aside(self._made, xml, vm_id, request)
        # Another may have come while a long document was read.
        self._refuse_second(vm_id)
        vm = self._vms[vm_id] = VM(vm_id, document, self._services)
        try:
            async with vm.lock:
                claims = await self._services.preflight.check(vm.domain.drives, vm_id, CreateFailed)
                try:
                    await self._define(vm, domain)
                except BaseException:
                    await claims.release()
                    raise
        except BaseException:
            self.forget(vm)
            raise
        log.info("%s is defined: %s", vm.name, event_log.described(vm.domain))
        # Not the VM's own: what ends with the VM could keep its images claimed.
        self._tasks.spawn(_start(vm, claims), f"start {vm.name}")
        return vm

    def _made(
        self, _xml: str, vm_id: str, request: VmDocument | VmDescription
    ) -> tuple[DomainRequest, Document]:
        domain = make_domain(
            vm_id,
            request,
            allow_emulation=self._options.allow_emulation,
            spare_pcie_ports=self._options.spare_pcie_ports,
        )
        return domain, Document.censored(domain.xml)

    async def _define(self, vm: VM, domain: DomainRequest) -> None:
        vm_id = vm.id
        if vm.doomed:
            raise CreateFailed(
                f"VM {vm_id} was destroyed while it was being created; create it again if it is "
                "still wanted",
                vmId=vm_id,
            )
        try:
            await self._connection.call(_define, self._connection.handle, vm_id, domain.xml)
        except libvirt.libvirtError as e:
            action, remedy = f"VM {vm_id} could not be defined", "correct its description"
            raise libvirt_errors.explain(e, action, CreateFailed, remedy=remedy) from e

    def _refuse_second(self, vm_id: str) -> None:
        known = self._vms.get(vm_id)
        if known is not None:
            raise VMExists(
                f"VM {vm_id} exists already and is {known.status.value}; destroy it first to "
                "create it anew",
                vmId=vm_id,
            )

    async def destroy(self, vm_id: str, graceful_attempts: int) -> None:
        """End the VM if it runs, and forget it. Raises NoSuchVM (1), and as VM.destroy does."""
        vm = self.get(vm_id)
        async with vm.ending:
            # Whoever waited for another's destroy is done: a VM of that id is a new one by now.
            if self.find(vm_id) is vm:
                await power.destroy(vm, graceful_attempts)
                self.forget(vm)

    def forget(self, vm: VM) -> None:
        """Take a VM off the list, and end what is still to happen to it."""
        if self._vms.get(vm.id) is vm:
            del self._vms[vm.id]
        vm.end()

    def _list(self, vm: VM) -> None:
        """Put a VM on the list, in place of another of its id."""
        replaced = self._vms.get(vm.id)
        self._vms[vm.id] = vm
        if replaced is not None:
            replaced.end()

    def storage_may_be_back(self) -> None:
        """Have the VMs that are paused for I/O errors look for their storage now."""
        for vm in self._vms.values():
            vm.io.storage_may_be_back()

    async def close(self) -> None:
        """End all tasks; the VMs run on."""
        await self._tasks.close()

    # For VMs that come from another host

    def expect(self, vm_id: str, document: Document) -> VM:
        """A VM of which libvirt has no domain yet; it is in the list from now on."""
        self._refuse_second(vm_id)
        vm = self._vms[vm_id] = VM(vm_id, document, self._services)
        return vm

    async def _stranger(self, uuid: str) -> None:
        try:
            document = await self._connection.on_domain(uuid, _ours)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("a domain that comes from another host cannot be read: %s", e)
            return
        if uuid not in self._vms and document is not None:
            self._vms[uuid] = VM(uuid, document, self._services)
            self.on_stranger(self._vms[uuid])

    # What libvirt tells

    async def _recover(self) -> None:
        """Read all our domains: at start, and after libvirt was gone.

        Raises libvirt.libvirtError and ResourceUnavailable (40), such as when libvirt goes away
        again: then not all are known, and it is to be called again.
        """
        async with self._recovering:
            await self._recover_all()

    async def _recover_all(self) -> None:
        await self._services.secrets.restore()
        # Those that are created meanwhile may be missing in what is found.
        known = {vm.id: vm for vm in self.vms() if not vm.starting}
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
        log.info("%d VMs, %d of them running", len(self._vms), sum(v.running for v in self.vms()))

    async def _recover_while_up(self) -> None:
        """Recover; if that fails, again until it does not, or the connection does it anyway."""
        while self._connection.ready:
            try:
                return await self._recover()
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
        vm = self._vms.get(domain.uuid)
        if vm is None or (not vm.running and not vm.doomed and change.cause is not Cause.STOPPED):
            # Down is final: one that somebody else has started again is another VM to engines.
            vm = VM(domain.uuid, domain.document, self._services)
            ended = change.cause is Cause.STOPPED and exit_record.recorded(vm.domain.metadata)
            try:
                travels = not ended and await self.on_travelling(vm, domain.document)
            except BaseException:
                vm.end()
                raise
            self._list(vm)
            if travels:
                return
        elif vm.starting:
            return
        elif vm.migration is not None:
            vm.migration.recheck()
            return
        if change.cause is Cause.STOPPED:
            change = exit_record.recorded(vm.domain.metadata) or change
        vm.found(domain.document, change)
        guest_agent.recover(vm)

    def _changed(self, vm: VM) -> None:
        self._on_change(vm)
        if io_resume.waits(vm):
            vm.spawn(io_resume.continue_when_back(vm))
        # One that did not arrive has no domain here to record it in.
        arrived = vm.exit is not None and vm.exit.reason is not ExitReason.MIGRATION_FAILED
        if vm.exit is not None and arrived and not vm.doomed:
            vm.spawn(exit_record.record(vm, vm.exit))

    def _event_handlers(self) -> dict[int, Callable[..., None]]:
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
        return self._vms.get(uuid)

    def _on_lifecycle(self, uuid: str, event: int, detail: int) -> None:
        self._heard_of.add(uuid)
        vm = self._of_event(uuid)
        if vm is None:
            if (event, detail) == _COMES:
                self._tasks.spawn(self._stranger(uuid), f"read {uuid}, which comes")
            return
        change = lifecycle.from_event(event, detail)
        if change is not None and change.cause is Cause.STOPPED:
            vm.end_told()
        if vm.migration is not None:
            vm.migration.lifecycle(event, detail)
            return
        if event == libvirt.VIR_DOMAIN_EVENT_UNDEFINED and not (vm.running or vm.doomed):
            log.warning("%s was removed from libvirt by somebody else", vm.name)
            self.forget(vm)
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
            self.on_pass(uuid, iteration)

    def _on_reboot(self, uuid: str) -> None:
        vm = self._of_event(uuid)
        if vm is not None:
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
            vm.device_kept(alias)


async def _does_not_travel(_vm: VM, _document: Document) -> bool:
    return False


def _nothing(*_told: Any) -> None:
    pass


async def _start(vm: VM, claims: Claims) -> None:
    try:
        await power.start(vm)
    finally:
        # QEMU is seen now by who looks at its images, or will not be.
        await claims.release()


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
        if is_ours(xml):
            found.append(Found(domain.UUIDString(), _readable(xml), state, reason))
    return found


def _readable(xml: str) -> Document | VdsmCinderError:
    try:
        return Document.read(xml)
    except VdsmCinderError as e:
        return e


def _ours(domain: libvirt.virDomain) -> Document | None:
    """The domain's document, if it is ours."""
    xml = domain.XMLDesc()
    return Document.read(xml) if is_ours(xml) else None


def _define(handle: libvirt.virConnect, vm_id: str, xml: str) -> None:
    try:
        name = handle.lookupByUUIDString(vm_id).name()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    else:
        raise VMExists(
            f"libvirt has a domain of uuid {vm_id} ({name}) that this daemon did not define; "
            "remove it with virsh undefine, or use another id",
            vmId=vm_id,
        )
    # Without VIR_DOMAIN_DEFINE_VALIDATE: libvirt's schema refuses <seclabel type="none"> of a disk,
    # which engines send and its parser has always taken.
    handle.defineXML(xml)
