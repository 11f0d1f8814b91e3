# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's call that copies a VM to another host, as a task: the first one, and those that resume.

virt/migration/outgoing.py begins it, virt/migration/post_copy.py goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from vdsmcinder.virt.migration import migration_job
from vdsmcinder.virt.migration.migration_job import Way
from vdsmcinder.virt.vm.migration_request import MigrationRequest

if TYPE_CHECKING:
    from vdsmcinder.virt.migration.outgoing import Outgoing

log = logging.getLogger(__name__)

# libvirt copies for as long as it takes; what has to end it is not a deadline.
FOR_EVER_S = 1e8
# How long QEMU may take to go on with a post-copy before that is told.
HANGS_S = 60.0


def begin(going: Outgoing, request: MigrationRequest, *, encrypted: bool) -> asyncio.Task[None]:
    """Copy the VM as it is asked for.

    The task raises libvirt.libvirtError, ResourceUnavailable (40), PeerUnreachable (10).
    """
    return _task(_begin(going, request, encrypted=encrypted))


def resume(going: Outgoing) -> asyncio.Task[None]:
    """Go on with a post-copy that broke off; the task raises what that of begin() does."""
    return _task(_resume(going))


async def _begin(going: Outgoing, request: MigrationRequest, *, encrypted: bool) -> None:
    way = Way(
        _uri(going),
        migration_job.flags(request, going.handover, encrypted=encrypted),
        migration_job.params(request, encrypted=encrypted),
        request.console_address or (await going.peer()).address,
    )
    log.info("%s: libvirt copies it to %s", going.vm.name, way.uri)
    await _migrate(going, way)


async def _resume(going: Outgoing) -> None:
    # All that it takes is in the mark: another daemon may have begun.
    mark = going.mark
    way = Way(
        _uri(going),
        migration_job.resume_flags(encrypted=mark.encrypted),
        migration_job.route(
            going.address, mark.data_host or going.address.host, encrypted=mark.encrypted
        ),
        (await going.peer()).address,
    )
    log.debug("%s: libvirt is to go on copying it to %s", going.vm.name, way.uri)
    call = _task(_migrate(going, way))
    await asyncio.wait({call}, timeout=HANGS_S)
    if not call.done() and going.still_s >= HANGS_S:
        log.error(
            "%s: QEMU on host %s has not gone on within %g s; it may wait itself for memory "
            "that is missing, and the VM be lost: VM.destroy on either host ends it",
            going.vm.name,
            going.address,
            HANGS_S,
        )
    await call


def _uri(going: Outgoing) -> str:
    return going.travel.options.libvirt_uri.format(host=going.address.url_host)


async def _migrate(going: Outgoing, way: Way) -> None:
    connection = going.travel.connection
    with going.vm.commanded():
        await connection.call(
            migration_job.migrate,
            connection.open_another,
            going.vm.id,
            way,
            timeout_s=FOR_EVER_S,
        )


def _task(call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(call)
    task.add_done_callback(_seen)
    return task


def _seen(call: asyncio.Task[None]) -> None:
    """Nobody may wait for it any more: how it ended is found out otherwise too."""
    if not call.cancelled():
        call.exception()
