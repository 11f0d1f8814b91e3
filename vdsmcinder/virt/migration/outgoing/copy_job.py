# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's job that copies a VM: begun, gone on with, made faster or slower, ended."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    PeerUnreachable,
    ResourceUnavailable,
    VdsmCinderError,
)
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.migration_job import Way
from vdsmcinder.virt.migration.outgoing.events import CallEnded
from vdsmcinder.virt.migration.outgoing.other_host import OtherHost
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.convergence import Action as Step
from vdsmcinder.virt.vm.convergence import Deed
from vdsmcinder.virt.vm.migration import Handover
from vdsmcinder.virt.vm.migration_request import MigrationRequest
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# libvirt copies for as long as it takes, in seconds; what has to end it is not a deadline.
FOR_EVER_S = 1e8
_SEE_LOGS = "that host's logs tell more, those of vdsm-cinderd and /var/log/libvirt/qemu"


class CopyJob:
    """One VM's, to one host. libvirt_uri: of libvirt there, with {host} in it."""

    def __init__(self, vm: VM, other: OtherHost, connection: Connection, libvirt_uri: str) -> None:
        self._vm = vm
        self._other = other
        self._connection = connection
        self._uri = libvirt_uri.format(host=other.address.url_host)
        self._failed = f"VM {vm.id} was not migrated to host {other.address}"

    async def copy(
        self, request: MigrationRequest, mark: MigrationMark, first: Sequence[Step]
    ) -> CallEnded:
        """Copy the VM as it is asked for; returns when libvirt has, or has not.

        first: what is to be done before.
        """
        for step in first:
            await self.take(step)
        try:
            console_address = request.console_address or (await self._other.peer()).address
        except PeerUnreachable as e:
            return self._not_made(e)
        way = Way(
            self._uri,
            migration_job.flags(request, Handover(mark.handover), encrypted=mark.encrypted),
            migration_job.params(request, encrypted=mark.encrypted),
            console_address,
        )
        log.info("%s: libvirt copies it to %s", self._vm.name, way.uri)
        return await self._call(way)

    async def go_on(self, mark: MigrationMark, *, break_off: bool) -> CallEnded:
        """Go on with a post-copy that broke off; returns as copy() does.

        mark: all that it takes, for another daemon may have begun. break_off: have QEMU give up its
        connection to the other host before.
        """
        if break_off:
            await self._have_qemu_notice()
        try:
            peer = await self._other.peer()
        except PeerUnreachable as e:
            return self._not_made(e)
        to = self._other.address
        way = Way(
            self._uri,
            migration_job.resume_flags(encrypted=mark.encrypted),
            migration_job.route(to, mark.data_host or to.host, encrypted=mark.encrypted),
            peer.address,
        )
        log.debug("%s: libvirt is to go on copying it to %s", self._vm.name, way.uri)
        return await self._call(way)

    async def _call(self, way: Way) -> CallEnded:
        connection, vm = self._connection, self._vm
        try:
            with vm.commands.serving():
                await connection.call(
                    migration_job.migrate,
                    connection.open_another,
                    vm.id,
                    way,
                    timeout_s=FOR_EVER_S,
                )
        except libvirt.libvirtError as e:
            drives = vm.domain.drives
            why = libvirt_errors.explain(e, self._failed, MigrationFailed, drives, _SEE_LOGS)
            return CallEnded(why, libvirt_errors.own_words(e))
        except VdsmCinderError as e:
            return self._not_made(e)
        return CallEnded()

    def _not_made(self, why: VdsmCinderError) -> CallEnded:
        return CallEnded(MigrationFailed(f"{self._failed}: {why.message}"), why.message)

    async def _have_qemu_notice(self) -> None:
        try:
            await self._vm.call(migration_job.break_off_post_copy)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            # It has noticed.
            log.debug("%s: post-copy was not broken off: %s", self._vm.name, e)

    async def take(self, step: Step) -> None:
        """Do what the schedule says; what libvirt refuses is logged, and the next may help."""
        calls = {
            Deed.SET_DOWNTIME: (migration_job.set_downtime, step.downtime_ms),
            Deed.POST_COPY: (migration_job.start_post_copy,),
            Deed.ABORT: (libvirt.virDomain.abortJob,),
        }
        if step.deed not in calls:
            return
        log.info("%s: %s %s", self._vm.name, step.deed.value, step.downtime_ms or "")
        try:
            await self._vm.call(*calls[step.deed])
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s: %s was refused: %s", self._vm.name, step.deed.value, e)

    async def set_speed(self, mib_s: int) -> None:
        """Limit the data to so many MiB/s, 0 for no limit. Raises MigrationFailed (12), and
        ResourceUnavailable (40)."""
        await self._vm.command(
            migration_job.set_speed, mib_s, doing="limited in migrating", failure=MigrationFailed
        )

    async def abort(self) -> None:
        """Have libvirt end it; what comes of that will be seen."""
        try:
            await self._vm.call(libvirt.virDomain.abortJob)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            # There is nothing to end yet, or nothing any more.
            log.debug("the migration of %s could not be aborted: %s", self._vm.name, e)
