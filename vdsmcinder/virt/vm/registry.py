# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of this host: created, looked up and removed. Domains without our metadata are never
touched and never listed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Callable

import libvirt

from vdsmcinder.ceph.workers import Workers
from vdsmcinder.config import Libvirt as LibvirtOptions
from vdsmcinder.config import Vms as VmOptions
from vdsmcinder.errors import (
    CreateFailed,
    NoSuchVM,
    VMExists,
)
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.hypervisor.long_xml import LONG, MANY_DEVICES, apart
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain.create_request import DomainRequest, VmDocument, make_domain
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.domain.vm_description import VmDescription
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.consent import Consent
from vdsmcinder.virt.storage.image_locks import Claims
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import (
    event_log,
    exit_record,
    io_resume,
    libvirt_errors,
    power,
)
from vdsmcinder.virt.vm.migration import Copies
from vdsmcinder.virt.vm.parts.freeze_state import LateThaw
from vdsmcinder.virt.vm.status import ExitReason
from vdsmcinder.virt.vm.vm import VM, Services

log = logging.getLogger(__name__)


class Registry:
    """All VMs that are ours, by uuid.

    on_change: called after a VM's status or devices changed. on_thaw: called when a guest was
    thawed because nobody else did, with how that went. host_words: as in make_domain().
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
        policy: DocumentPolicy,
        copies: Copies,
        on_change: Callable[[VM], None],
        on_thaw: Callable[[VM, LateThaw], None],
        on_taken: Callable[[VM], None],
        host_words: Mapping[str, str],
        tasks: Tasks,
    ) -> None:
        self._connection = connection
        self._host_words = host_words
        self._options = vm_options
        self._vms: dict[str, VM] = {}
        self._tasks = tasks
        self._services = Services(
            connection,
            secrets,
            ceph,
            preflight,
            vm_options,
            policy,
            copies,
            libvirt_options.start_timeout_s,
            self._changed,
            on_thaw,
            on_taken,
            tasks,
        )
        self._on_change = on_change

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
        domain, document = await apart(_takes_long(request), self._made, vm_id, request)
        # Another may have come while a long document was read.
        self._refuse_second(vm_id)
        vm = self._vms[vm_id] = VM(vm_id, document, self._services)
        try:
            async with vm.lock:
                claims = await self._services.preflight.check(
                    vm.domain.ceph, vm_id, CreateFailed, consent=request.consent
                )
                try:
                    await self._define(vm, domain)
                except BaseException:
                    await claims.release()
                    raise
        except BaseException:
            # A VM.destroy that waits for the lock removes its domain yet, and forgets it then: no
            # other VM may have its id before.
            if not vm.doomed:
                self.forget(vm)
            raise
        log.info("%s is defined: %s", vm.name, event_log.described(vm.domain))
        # Not the VM's own: what ends with the VM could keep its images claimed.
        self._tasks.spawn(_start(vm, claims, request.consent), f"start {vm.name}")
        return vm

    def go_on_starting(self, vm: VM, document: Document) -> None:
        """Have a start done that was left half done: QEMU is there, paused."""
        vm.start_goes_on(document)
        claims = self._services.preflight.no_claims()
        self._tasks.spawn(_go_on_starting(vm, claims), f"go on with the start of {vm.name}")

    def _made(
        self, vm_id: str, request: VmDocument | VmDescription
    ) -> tuple[DomainRequest, Document]:
        domain = make_domain(
            vm_id,
            request,
            allow_emulation=self._options.allow_emulation,
            spare_pcie_ports=self._options.spare_pcie_ports,
            host_words=self._host_words,
        )
        document = Document.censored(domain.xml)
        self._services.policy.check(parse(domain.xml, "domain xml"), f"VM {vm_id}")
        return domain, document

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
        async with vm.ending.lock:
            # Whoever waited for another's destroy is done: a VM of that id is a new one by now.
            if self.find(vm_id) is vm:
                await power.destroy(vm, graceful_attempts)
                self.forget(vm)

    def forget(self, vm: VM) -> None:
        """Take a VM off the list, and end what is still to happen to it."""
        if self._vms.get(vm.id) is vm:
            del self._vms[vm.id]
        vm.end()

    def make(self, vm_id: str, document: Document) -> VM:
        """A VM that is not on the list yet; to be enlisted, or ended."""
        return VM(vm_id, document, self._services)

    def enlist(self, vm: VM) -> None:
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

    def _changed(self, vm: VM) -> None:
        self._on_change(vm)
        if io_resume.waits(vm):
            vm.spawn(io_resume.continue_when_back(vm))
        # One that did not arrive has no domain here to record it in.
        arrived = vm.exit is not None and vm.exit.reason is not ExitReason.MIGRATION_FAILED
        if vm.exit is not None and arrived and not vm.doomed:
            vm.spawn(exit_record.record(vm, vm.exit))


def _takes_long(request: VmDocument | VmDescription) -> bool:
    """Whether it takes long to make its domain."""
    if isinstance(request, VmDocument):
        return len(request.xml) >= LONG
    return len(request.drives) + len(request.nics) > MANY_DEVICES


async def _start(vm: VM, claims: Claims, consent: Consent) -> None:
    try:
        await power.start(vm, claims, consent)
    finally:
        # QEMU is seen now by who looks at its images, or will not be.
        await claims.release()


async def _go_on_starting(vm: VM, claims: Claims) -> None:
    try:
        await power.go_on_starting(vm, claims)
    finally:
        await claims.release()


# What follows runs in the connection's thread pool.


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
