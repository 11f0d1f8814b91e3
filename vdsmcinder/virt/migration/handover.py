# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding out what came of a migration, whoever failed meanwhile, and having both hosts agree.

virt/migration/outgoing.py calls settle(). There are three ends: the VM's QEMU process here has
ended, so that the copy may run; it goes on here, so that the copy must not; or it stands here and
the copy may run already, so that the other host has to be asked. In post-copy the copy runs and
needs what is here: when that breaks off it is no end, but virt/migration/post_copy.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    NoSuchVM,
    PeerUnreachable,
    ResourceUnavailable,
    VdsmCinderError,
    VMExists,
)
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.migration import migration_job
from vdsmcinder.virt.migration.migration_job import Situation
from vdsmcinder.virt.migration.post_copy import (
    FIRST_RETRY_S,
    MOST_RETRY_S,
    STILL_S,
    CopyEnded,
    Recovery,
)
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Handover, PeerRefused, Phase, Verdict, error_of

if TYPE_CHECKING:
    from vdsmcinder.virt.migration.outgoing import Outgoing

log = logging.getLogger(__name__)

LOOK_S = 0.5
# How long libvirt may take to tell why a QEMU process has ended.
REASON_S = 5.0
# The other host cleans up by itself what it is not told in all that time.
DROP_S = 300.0
# How long the other host may take to say whether it let the VM run, as if this one were off.
ASK_S = 15.0


async def settle(going: Outgoing, copying: asyncio.Task[None] | None) -> None:
    """Return when it is over. copying: libvirt's call; None if it was another daemon's."""
    failure: BaseException | None = None
    recovery = Recovery(going)
    while True:
        now = await _until_over(going, copying)
        if copying is not None and copying.done():
            failure = copying.exception() or failure
        if now is None or now.gone:
            return await _departed(going, copying, failure)
        if now.post_copy:
            try:
                copying = await recovery.attempt(failure)
            except CopyEnded:
                return await _copy_ended(going)
            continue
        if going.handover is Handover.LIBVIRT and going.may_run_there:
            return await _contested(going, failure)
        if await _stays(going, now, failure):
            return None


async def _until_over(going: Outgoing, copying: asyncio.Task[None] | None) -> Situation | None:
    """How libvirt has the VM when nothing goes on any more; None if its QEMU process has ended."""
    while True:
        going.woken.clear()
        if going.qemu is not None and going.qemu.done():
            return None
        if copying is None or copying.done():
            now = await _look(going)
            if now is not None and _is_over(going, now):
                return now
        await _wait_for_news(going, copying)


def _is_over(going: Outgoing, now: Situation) -> bool:
    """Whether nothing goes on any more by itself."""
    if not now.post_copy:
        return now.gone or not now.busy
    going.runs_there()
    return now.broken_off or going.still_s >= STILL_S


async def _wait_for_news(going: Outgoing, copying: asyncio.Task[None] | None) -> None:
    woken = asyncio.ensure_future(going.woken.wait())
    news: set[asyncio.Future[object]] = {woken}  # type: ignore[arg-type]
    if copying is not None and not copying.done():
        news.add(copying)  # type: ignore[arg-type]
    if going.qemu is not None:
        news.add(going.qemu)  # type: ignore[arg-type]
    try:
        await asyncio.wait(news, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        woken.cancel()


async def _look(going: Outgoing) -> Situation | None:
    """How libvirt has the VM; None while it cannot be asked."""
    try:
        return await going.vm.services.connection.on_domain(going.vm.id, migration_job.situation)
    except ResourceUnavailable:
        return None
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return Situation(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, False)
        log.debug("%s: libvirt does not tell how it is: %s", going.vm.name, e)
        return None


# The QEMU process here has ended


async def _departed(
    going: Outgoing, copying: asyncio.Task[None] | None, failure: BaseException | None
) -> None:
    """Let the copy run, if there is a whole one."""
    going.phase = Phase.CONCLUDING
    refused = None
    if not going.vm.doomed:
        refused = await _say(going, Verdict.RUN, final=(NoSuchVM, MigrationFailed))
        if refused is None and not going.vm.doomed:
            going.handed_over()
            await _until_libvirt_is_done(going, copying)
            going.left()
            return
    # At once: until the other host has ended its copy, libvirt lets nobody remove the VM here.
    going.spawn(_end_there(going) if going.progress.post_copy else drop(going))
    change = await _why_ended(going)
    if going.progress.post_copy:
        change = going.vm.wanted_exit or lifecycle.POSTCOPY_FAILED
    why = going.explain(failure)
    going.stays(change, why if going.ended_by_itself or refused is None else refused)


async def _end_there(going: Outgoing) -> None:
    """Have the other host end its copy, which ran already, unless it is whole."""
    await _told(going, Verdict.RUN)


async def _until_libvirt_is_done(going: Outgoing, copying: asyncio.Task[None] | None) -> None:
    """libvirt notices some tenths of a second after us that the process has ended."""
    deadline_s = going.travel.connection.call_timeout_s
    if copying is not None:
        await asyncio.wait({copying}, timeout=deadline_s)
        return
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_until_gone(going), deadline_s)


async def _until_gone(going: Outgoing) -> None:
    while (now := await _look(going)) is None or not now.gone:
        going.woken.clear()
        await _wait_for_news(going, None)


async def _why_ended(going: Outgoing) -> Change:
    """Why the VM ended here, as libvirt tells it; its copy is not whole, so it is lost."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_until_gone(going), REASON_S)
    now = await _look(going)
    change = going.ended
    if change is None and now is not None and now.gone:
        change = lifecycle.from_state(now.state, now.reason)
    if change is None or change is lifecycle.MIGRATED_AWAY or change is lifecycle.NOT_RUNNING:
        return lifecycle.QEMU_LOST
    return going.vm.wanted_exit or change


# The QEMU process goes on here


async def _stays(going: Outgoing, now: Situation, failure: BaseException | None) -> bool:
    """Let the VM go on here, as it was; False if libvirt has to be asked again how it is."""
    connection, vm = going.vm.services.connection, going.vm
    if going.may_run_there and await _runs_there(going):
        await _give_up(going)
        going.handed_over()
        going.left()
        return True
    try:
        if now.interrupted:
            log.warning("%s was left standing by libvirt at its handover; it is continued", vm.name)
            await connection.on_domain(vm.id, libvirt.virDomain.resume)
        change, xml = await connection.on_domain(vm.id, stay)
    except (libvirt.libvirtError, ResourceUnavailable) as e:
        log.warning("%s: whether it goes on here is not known yet: %s", vm.name, e)
        await asyncio.sleep(LOOK_S)
        return False
    going.spawn(_drop_or_give_way(going))
    vm.take_xml(xml)
    going.stays(change, going.explain(failure))
    return True


async def _runs_there(going: Outgoing) -> bool:
    """Have the other host forget its copy, unless that was let run without a word from here."""
    with contextlib.suppress(asyncio.TimeoutError):
        saying = _say(going, Verdict.DROP, final=(VMExists,))
        return await asyncio.wait_for(saying, ASK_S) is not None
    return False


async def _drop_or_give_way(going: Outgoing) -> None:
    """Have the other host forget its copy; end the VM here if that was let run there meanwhile."""
    refusal, vm = await _told(going, Verdict.DROP), going.vm
    if isinstance(refusal, VMExists) and going.may_run_there and vm.running:
        log.error(
            "%s runs on host %s too, to which it was said that this one is off; it is ended here",
            vm.name,
            going.address,
        )
        vm.wanted_exit = lifecycle.MIGRATED_AWAY
        await _give_up(going)


async def drop(going: Outgoing) -> None:
    """Have the other host forget its copy; it does so by itself some time, or when asked again."""
    await _told(going, Verdict.DROP)


async def _told(going: Outgoing, verdict: Verdict) -> VdsmCinderError | None:
    """Say it, while nothing here waits for that any more; the refusal, if any."""
    saying = _say(going, verdict, final=(VdsmCinderError,), insist=True)
    try:
        return await asyncio.wait_for(saying, DROP_S)
    except asyncio.TimeoutError:
        log.warning("host %s was not told what becomes of %s", going.address, going.vm.name)
        return None
    finally:
        await going.hang_up()


# The QEMU process is here, but the VM may run on the other host


async def _contested(going: Outgoing, failure: BaseException | None) -> None:
    """Have the VM stand until the other host has said whether it runs there; then give one up."""
    going.phase = Phase.CONCLUDING
    vm, connection = going.vm, going.vm.services.connection
    with contextlib.suppress(libvirt.libvirtError, ResourceUnavailable):
        await connection.on_domain(vm.id, libvirt.virDomain.suspend)
    log.warning("%s is stopped until host %s says whether it runs there", vm.name, going.address)
    if await _say(going, Verdict.DROP, final=(VMExists,)) is not None:
        await _give_up(going)
        going.handed_over()
        going.left()
        return
    while not vm.doomed:
        now = await _look(going)
        if now is not None and now.gone:
            break
        try:
            await connection.on_domain(vm.id, libvirt.virDomain.resume)
            change, xml = await connection.on_domain(vm.id, stay)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("%s cannot be continued yet: %s", vm.name, e)
            await asyncio.sleep(LOOK_S)
            continue
        vm.take_xml(xml)
        going.stays(change, going.explain(failure))
        return
    going.stays(await _why_ended(going), going.explain(failure))


async def _give_up(going: Outgoing) -> None:
    """End the QEMU process here; the VM runs on the other host, or nowhere."""
    vm = going.vm
    while not vm.doomed:
        try:
            await vm.services.connection.on_domain(vm.id, migration_job.destroy)
            return
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("the QEMU process that %s left here cannot be ended yet: %s", vm.name, e)
            await asyncio.sleep(LOOK_S)


async def _copy_ended(going: Outgoing) -> None:
    """The VM ended on the other host; what is left of its memory here is of no use."""
    await _give_up(going)
    why = MigrationFailed(
        f"VM {going.vm.id} was lost in post-copy: it ran on host {going.address} already and ended "
        "there while the rest of its memory was here"
    )
    going.stays(going.vm.wanted_exit or lifecycle.POSTCOPY_FAILED, why)


# What is said to the other host


async def _say(
    going: Outgoing,
    verdict: Verdict,
    final: tuple[type[VdsmCinderError], ...],
    *,
    insist: bool = False,
) -> VdsmCinderError | None:
    """Repeat it until it is answered; the refusal, if it is one that is final.

    None also if it is RUN and the VM is destroyed meanwhile: no more is said then. insist: it is.
    """
    pause_s, told = FIRST_RETRY_S, False
    while insist or verdict is Verdict.DROP or not going.vm.doomed:
        try:
            peer = await going.peer()
            going.running_ms = await peer.conclude(going.vm.id, going.id, verdict)
            return None
        except PeerRefused as e:
            error = error_of(e, f"VM {going.vm.id}: host {going.address}", MigrationFailed)
            if isinstance(error, final):
                return error
        except PeerUnreachable as e:
            await going.hang_up()
            error = e
        if not told:
            log.warning("%s: %s; trying on", going.vm.name, error.message)
            told = True
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, MOST_RETRY_S)
    return None


# What follows runs in the connection's thread pool.


def stay(domain: libvirt.virDomain) -> tuple[Change, str]:
    """Take the mark of a migration from the domain; how it is now, and its document."""
    if domain.isActive():
        migration_job.set_mark(domain, metadata.NO_MIGRATION)
    state, reason = domain.state()
    return lifecycle.from_state(state, reason), domain.XMLDesc()
