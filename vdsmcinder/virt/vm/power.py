# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, ending, resetting and pausing a VM.

What comes of a command that goes on after it returned is told by the VM's status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import libvirt

from vdsmcinder.ceph.image_use import Others
from vdsmcinder.errors import (
    CreateFailed,
    DestroyFailed,
    ResetFailed,
    ResourceUnavailable,
    Unexpected,
    UnsupportedOperation,
    VdsmCinderError,
)
from vdsmcinder.hypervisor.connection import CallOverrun, ConnectionLost
from vdsmcinder.tasks import within
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent
from vdsmcinder.virt.storage.image_locks import Claims
from vdsmcinder.virt.vm import cpu_limit, exit_record, image_guard, libvirt_errors, lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Migration
from vdsmcinder.virt.vm.status import Cause, Exit, ExitCode, ExitReason, PauseCode, Status
from vdsmcinder.virt.vm.vm import NOT_STARTED_YET, VM, described

log = logging.getLogger(__name__)

UNDEFINE_FLAGS = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
# libvirt waits 10 s for a process to heed SIGTERM, and some more after SIGKILL.
KILL_S = 20.0
# What a VM's metadata say of it while it starts: whether who has its images open was vouched for.
_CHECKED = "checked"
_UNCHECKED = "unchecked"
DESTROYED_WHILE_STARTING = Change(
    Cause.STOPPED,
    exit=Exit(
        ExitCode.NORMAL,
        ExitReason.DESTROYED_ON_STARTUP,
        "The VM was destroyed while it was being started.",
    ),
)


async def start(vm: VM, claims: Claims, consent: Consent = NO_CONSENT) -> None:
    """Have libvirt start the defined domain; whatever comes of it is told by the VM's status.

    Where images are the VM's alone, its guest does not run before they have been looked at once
    more, of which engines see nothing. claims, consent: of those images.
    """
    async with vm.lock:
        if vm.doomed:
            return
        vm.apply(Change(Cause.LAUNCH))
        marks, flags = _guard(vm, consent)
        timeout_s = vm.services.start_timeout_s
        try:
            begun = await vm.services.connection.on_domain(
                vm.id, _create, flags, marks, timeout_s=timeout_s
            )
        except CallOverrun:
            await _kill(vm, graceful_attempts=0)
            _start_failed(
                vm,
                f"VM {vm.id} could not be started: it did not come up within {timeout_s:g} s and "
                "was destroyed; check that the Ceph cluster of its disks answers",
            )
        except libvirt.libvirtError as e:
            _start_failed(vm, _refused(vm, e))
        except ConnectionLost as e:
            log.warning("whether %s was started is known when libvirt is back: %s", vm.name, e)
            vm.lost_sight()
        except ResourceUnavailable as e:
            _start_failed(vm, f"VM {vm.id} could not be started: {e}")
        else:
            if marks:
                await _look_and_let_run(vm, claims, consent)
            else:
                await _started(vm, begun)


async def go_on_starting(vm: VM, claims: Claims) -> None:
    """Go on with a start that was left when its QEMU process was there, paused.

    So it is when the daemon was killed meanwhile, or libvirt went away. claims: none yet.
    """
    async with vm.lock:
        if vm.doomed:
            return
        if not vm.domain.metadata.launch_paused:
            vm.start.to_be_let_run()
        consent = Consent(unchecked=vm.domain.metadata.starting == _UNCHECKED)
        await _look_and_let_run(vm, claims, consent)


async def has_started(vm: VM) -> None:
    """Take from a VM that was let run the mark that it is to be, or a pause would be undone."""
    try:
        await vm.call(metadata.set_live, {metadata.STARTING: ""})
    except (libvirt.libvirtError, ResourceUnavailable) as e:
        log.warning("%s is marked as one that starts: %s", vm.name, e)


def _guard(vm: VM, consent: Consent) -> tuple[Mapping[str, str], int]:
    """What its metadata say while it starts, empty if nothing of it is looked at; libvirt's flags.

    They tell the next daemon, if this one is killed, that the VM is to be let run, and what was
    vouched for.
    """
    paused = libvirt.VIR_DOMAIN_START_PAUSED
    if not vm.services.preflight.confirms(vm.domain.ceph):
        return {}, paused if vm.domain.metadata.launch_paused else 0
    if not vm.domain.metadata.launch_paused:
        vm.start.to_be_let_run()
    return {metadata.STARTING: _UNCHECKED if consent.unchecked else _CHECKED}, paused


async def _look_and_let_run(vm: VM, claims: Claims, consent: Consent) -> None:
    """Let the guest run, which is to begin, unless its images are in use elsewhere."""
    paused = vm.domain.metadata.launch_paused
    try:
        await vm.services.preflight.confirm(vm.domain.ceph, vm.id, claims, CreateFailed, consent)
        begun = await vm.services.connection.on_domain(vm.id, _let_run, paused)
        if not paused:
            await vm.start.is_let_run(vm.services.connection.call_timeout_s)
    except ConnectionLost as e:
        log.warning("%s is let run when libvirt is back: %s", vm.name, e)
        vm.lost_sight()
    except libvirt.libvirtError as e:
        await _kill(vm, graceful_attempts=0)
        _start_failed(vm, _refused(vm, e))
    except VdsmCinderError as e:
        await _kill(vm, graceful_attempts=0)
        _start_failed(vm, f"VM {vm.id} could not be started: {e}")
    else:
        await _started(vm, begun)


async def _started(vm: VM, begun: tuple[Document, int, int]) -> None:
    document, state, reason = begun
    vm.started(document, lifecycle.from_state(state, reason))
    vm.spawn(cpu_limit.enforce(vm))
    if vm.doomed:
        await _kill(vm, graceful_attempts=0)


def _refused(vm: VM, error: libvirt.libvirtError) -> str:
    action = f"VM {vm.id} could not be started"
    return libvirt_errors.explain(error, action, CreateFailed, vm.domain.drives).message


def _start_failed(vm: VM, message: str) -> None:
    failure = Exit(ExitCode.ERROR, ExitReason.LIBVIRT_START_FAILED, message)
    vm.apply(vm.wanted_exit or Change(Cause.STOPPED, exit=failure))


async def destroy(vm: VM, graceful_attempts: int) -> None:
    """End the VM, whatever it is doing, and remove its domain from libvirt.

    graceful_attempts: how often QEMU is asked to end by SIGTERM before it is killed.
    Raises DestroyFailed (42), ResourceUnavailable (40); what is left of it is listed on then.
    """
    vm.ending.doom()
    try:
        await _destroy_all(vm, graceful_attempts)
    except VdsmCinderError:
        vm.ending.spare()
        if vm.exit is not None:
            # Before it is answered: after a restart it is as it was said to be.
            await exit_record.record(vm, vm.exit)
        raise
    except BaseException:
        vm.ending.spare()
        raise


async def _destroy_all(vm: VM, graceful_attempts: int) -> None:
    migration = vm.migration
    if migration is not None:
        await migration.end()
    if vm.wanted_exit is None:
        starting = vm.status in NOT_STARTED_YET
        vm.ending.want(DESTROYED_WHILE_STARTING if starting else lifecycle.DESTROYED)
    # Without the lock: a start or an unplug that holds it may be what is to be ended.
    await _kill(vm, graceful_attempts)
    if migration is not None:
        await _see_where_it_is(vm, migration)
    async with vm.lock:
        if vm.status in NOT_STARTED_YET:
            vm.apply(vm.wanted_exit or lifecycle.DESTROYED)
        await _end_copies(vm)
        try:
            await vm.services.connection.on_domain(vm.id, _undefine)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                action = f"VM {vm.id} was ended but could not be removed from libvirt"
                raise libvirt_errors.explain(e, action, DestroyFailed) from e


async def _see_where_it_is(vm: VM, migration: Migration) -> None:
    """Raise DestroyFailed (42) for a VM that runs on another host, or may."""
    await migration.over()
    if vm.migration is migration:
        raise DestroyFailed(
            f"VM {vm.id} has ended here, but {migration.words}, and whether it runs there is not "
            "known yet; call again when that host can be reached",
            vmId=vm.id,
        )
    if vm.exit is not None and vm.exit.reason is ExitReason.MIGRATION_SUCCEEDED:
        raise DestroyFailed(
            f"VM {vm.id} has left this host meanwhile, and runs there: {vm.exit.message} Destroy "
            "it there, and call again for what is left of it here",
            vmId=vm.id,
        )


async def _end_copies(vm: VM) -> None:
    """Return when no copy of the VM can run on another host. Raises DestroyFailed (42)."""
    doubt = await vm.services.copies.end(vm.id)
    if doubt is None:
        return
    if not vm.domain.ceph.images:
        raise doubt
    # A copy that nobody hears of has no process if none has its images open.
    try:
        claims = await vm.services.preflight.check(
            vm.domain.ceph, vm.id, DestroyFailed, Others.HERE
        )
    except VdsmCinderError as e:
        raise doubt from e
    await claims.release()


async def _kill(vm: VM, graceful_attempts: int) -> None:
    """End the VM's QEMU process, past all locks."""
    if not vm.running:
        return
    # A process that hangs does not heed SIGTERM.
    attempts = 0 if vm.monitor.hangs else graceful_attempts
    timeout_s = max((attempts + 1) * KILL_S, vm.services.connection.call_timeout_s)
    try:
        with vm.commands.serving():
            await vm.services.connection.on_domain(vm.id, _destroy, attempts, timeout_s=timeout_s)
            await vm.ending.is_told()
    except CallOverrun as e:
        raise DestroyFailed(f"VM {vm.id} could not be destroyed: {e}") from e
    except libvirt.libvirtError as e:
        if not libvirt_errors.nothing_to_end(e):
            raise libvirt_errors.explain(
                e, f"VM {vm.id} could not be destroyed", DestroyFailed
            ) from e
    if vm.status not in NOT_STARTED_YET:
        vm.apply(lifecycle.DESTROYED)


async def shutdown(
    vm: VM, *, delay_s: float, message: str, reboot: bool, timeout_s: float | None, force: bool
) -> None:
    """Ask the guest to shut down, or to reboot; returns as soon as the request stands.

    Its agent is asked first, then its power button is pressed.
    delay_s: when to ask. message: for the guest's users; it is only logged, because neither QEMU's
    guest agent nor a power button takes a text. timeout_s: how long the guest has to heed, None for
    any time. force: end (or reset) the VM when it has not.
    Raises VMIsDown (6), UnsupportedOperation (75) for a guest that is paused, ResourceUnavailable
    (40) where libvirt cannot be reached.
    """
    async with vm.lock:
        vm.require_running("shut down")
        if vm.status is Status.PAUSED and not force:
            raise UnsupportedOperation(
                f"VM {vm.id} is Paused, so its guest cannot shut down; continue it with VM.cont "
                "first, or end it with VM.destroy"
            )
        vm.services.connection.require()
        vm.apply(Change(Cause.REBOOT if reboot else Cause.POWER_DOWN))
    if message:
        log.info("%s is brought down in %g s: %s", vm.name, delay_s, message)
    vm.spawn(_bring_down(vm, delay_s, reboot, timeout_s, force))


async def _bring_down(
    vm: VM, delay_s: float, reboot: bool, timeout_s: float | None, force: bool
) -> None:
    waiting = vm.status
    if await _ends_within(vm, delay_s):
        return
    if not reboot:
        # Not before: until it is asked, an end of the guest's own is the guest's.
        vm.ending.want(lifecycle.ADMIN_SHUT_DOWN)
    try:
        with vm.commands.serving():
            await _ask(vm, reboot)
            await within(vm.wait_while(waiting), timeout_s)
        return
    except (libvirt.libvirtError, ResourceUnavailable) as e:
        log.warning("the guest of %s could not be asked to shut down: %s", vm.name, e)
    except asyncio.TimeoutError:
        log.warning("the guest of %s did not shut down within %g s", vm.name, timeout_s)
    if not force:
        vm.ending.give_up()
        vm.apply(Change(Cause.POWER_DOWN_IGNORED))
    elif reboot:
        await reset(vm)
    else:
        await _kill(vm, graceful_attempts=1)


async def _ends_within(vm: VM, delay_s: float) -> bool:
    """Wait for so long, or until the VM is Down: whether it is."""
    try:
        await within(vm.wait_until_down(), delay_s)
    except asyncio.TimeoutError:
        return False
    return True


async def _ask(vm: VM, reboot: bool) -> None:
    agent_s = vm.services.options.agent_timeout_s
    # libvirt waits that long twice for an agent that hangs, and presses the button then.
    timeout_s = 2 * agent_s + vm.services.connection.call_timeout_s
    await vm.call(_press, reboot, agent_s, timeout_s=timeout_s)


async def reset(vm: VM) -> None:
    """Reset the VM as its reset button would. Raises ResetFailed (90), VMIsDown (6)."""
    async with vm.lock:
        vm.require_running("reset")
        with vm.commands.serving():
            await vm.command(libvirt.virDomain.reset, doing="reset", failure=ResetFailed)


async def set_destroy_on_reboot(vm: VM) -> None:
    """Have the VM end when its guest reboots, so that an engine can start it as it is now to be.

    Raises VMIsDown (6), Unexpected (16).
    """
    async with vm.lock:
        vm.require_running("told what its next reboot is")
        values = {metadata.DESTROY_ON_REBOOT: "true"}
        await vm.command(metadata.set_live, values, doing="told so", failure=Unexpected)
        await vm.refresh()


async def end_instead_of_reboot(vm: VM) -> None:
    """End a VM whose guest reboots; a failure is logged, for nobody waits for it."""
    vm.ending.want(lifecycle.DESTROYED_ON_REBOOT)
    try:
        await _kill(vm, graceful_attempts=1)
    except VdsmCinderError as e:
        vm.ending.give_up()
        log.error("%s reboots, for it could not be ended: %s", vm.name, e.message)


async def pause(vm: VM) -> None:
    """Stop the VM's CPUs; one that QEMU paused for an I/O error stays paused until cont().

    Raises VMIsDown (6), Unexpected (16).
    """
    async with vm.lock:
        vm.require_running("paused")
        if vm.status is Status.PAUSED:
            # It stands already, so that all there is to do is to keep it so.
            if vm.pause_code is not PauseCode.NOERR:
                held = {metadata.HELD: "true"}
                await vm.command(metadata.set_live, held, doing="kept paused", failure=Unexpected)
                vm.io.hold()
            return
        with vm.commands.serving():
            await vm.command(libvirt.virDomain.suspend, doing="paused", failure=Unexpected)
        vm.apply(lifecycle.PAUSED_BY_US)


async def cont(vm: VM) -> None:
    """Let the VM's CPUs run again, unless another host has opened its images.

    Raises VMIsDown (6), Unexpected (16).
    """
    async with vm.lock:
        vm.require_running("continued")
        if vm.status is Status.UP:
            return
        await image_guard.require_free(vm)
        errors = vm.io.count
        with vm.commands.serving():
            await vm.command(_resume, vm.io.held, doing="continued", failure=Unexpected)
        vm.io.let_go()
        # If its storage is not back, it has been paused again, and the events have told.
        if vm.io.count == errors:
            vm.apply(lifecycle.RUNNING)


# What follows runs in the connection's thread pool.


def _create(
    domain: libvirt.virDomain, flags: int, marks: Mapping[str, str]
) -> tuple[Document, int, int]:
    if marks:
        # What runs has them from the persistent domain.
        metadata.set_lasting(domain, marks)
    # libvirt finds saved images by the domain's name: one of another life is not gone on with.
    if domain.connect().getType() == "QEMU":
        flags |= libvirt.VIR_DOMAIN_START_FORCE_BOOT
    domain.createWithFlags(flags)
    state, reason = domain.state()
    return described(domain), state, reason


def _let_run(domain: libvirt.virDomain, paused: bool) -> tuple[Document, int, int]:
    if not paused:
        domain.resume()
    # Not before: who finds it paused and without the mark leaves it so.
    metadata.set_live(domain, {metadata.STARTING: ""})
    state, reason = domain.state()
    return described(domain), state, reason


def _resume(domain: libvirt.virDomain, held: bool) -> None:
    domain.resume()
    if held:
        metadata.set_live(domain, {metadata.HELD: ""})


def _press(domain: libvirt.virDomain, reboot: bool, agent_s: int) -> None:
    # Without a channel for an agent there is no time-out to set, and no agent to wait for.
    with contextlib.suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(agent_s)
    if reboot:
        domain.reboot()
    else:
        domain.shutdown()


def _destroy(domain: libvirt.virDomain, graceful_attempts: int) -> None:
    for _ in range(graceful_attempts):
        try:
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
            return
        except libvirt.libvirtError as e:
            if libvirt_errors.nothing_to_end(e):
                return
            log.warning("%s does not end gracefully: %s", domain.name(), e)
    domain.destroy()


def _undefine(domain: libvirt.virDomain) -> None:
    domain.undefineFlags(UNDEFINE_FLAGS)
