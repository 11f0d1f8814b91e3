# SPDX-License-Identifier: GPL-2.0-or-later
"""The domain of a VM that leaves: looked at and changed, and how that went as an event."""

from __future__ import annotations

import contextlib

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.migration_job import Situation
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.states import Here
from vdsmcinder.virt.vm import libvirt_errors, lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.vm import VM, described


class SourceDomain:
    """One VM's."""

    def __init__(self, vm: VM) -> None:
        self._vm = vm
        self._connection = vm.services.connection

    async def look(self) -> ev.Looked:
        """How libvirt has it."""
        try:
            now = await self._connection.on_domain(self._vm.id, migration_job.situation)
        except ResourceUnavailable:
            return ev.Looked(None)
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return ev.Looked(Here.GONE, lifecycle.NOT_RUNNING)
            return ev.Looked(None)
        return ev.Looked(here(now), lifecycle.from_state(now.state, now.reason))

    async def suspend(self) -> ev.Suspended:
        """Have its guest stand, if libvirt can be called."""
        with contextlib.suppress(libvirt.libvirtError, ResourceUnavailable):
            await self._connection.on_domain(self._vm.id, libvirt.virDomain.suspend)
        return ev.Suspended()

    async def stay(self, *, resume: bool, owed: str) -> ev.Stays | ev.NotKnown:
        """Take the mark of a migration from it. resume: have its guest run before.

        owed: what other hosts are still to be told, as its metadata has it.
        """
        vm = self._vm
        try:
            if resume:
                await self._connection.on_domain(vm.id, libvirt.virDomain.resume)
            change, document = await self._connection.on_domain(vm.id, _stay, owed)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            return ev.NotKnown(str(e))
        vm.take(document)
        return ev.Stays(change, _io_error(vm))

    async def destroy(self) -> ev.Destroyed | ev.NotDestroyed:
        """End its QEMU process."""
        try:
            await self._connection.on_domain(self._vm.id, migration_job.destroy)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            if isinstance(e, libvirt.libvirtError) and libvirt_errors.nothing_to_end(e):
                return ev.Destroyed()
            return ev.NotDestroyed(str(e))
        return ev.Destroyed()


def here(now: Situation) -> Here:
    """What a situation means on the source."""
    if now.post_copy:
        return Here.BROKEN_OFF if now.broken_off else Here.POST_COPY
    if now.gone:
        return Here.GONE
    if now.busy:
        return Here.BUSY
    return Here.INTERRUPTED if now.interrupted else Here.IDLE


def _io_error(vm: VM) -> str:
    if vm.io.code is None:
        return ""
    disks = ", ".join(sorted(vm.io.disks))
    return (
        f"QEMU paused it for an I/O error ({vm.io.code.value}) on {disks}; migrate it again when "
        "its storage is back"
    )


# What follows runs in the connection's thread pool.


def _stay(domain: libvirt.virDomain, owed: str) -> tuple[Change, Document]:
    """Take the mark of a migration from the domain; how it is now, and its document."""
    if domain.isActive():
        # At once, or a daemon that ends in between would know of neither.
        migration_job.set_mark(domain, {**metadata.NO_MIGRATION, metadata.OWED: owed})
    state, reason = domain.state()
    return lifecycle.from_state(state, reason), described(domain)
