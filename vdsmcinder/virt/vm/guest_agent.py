# SPDX-License-Identifier: GPL-2.0-or-later
"""Freezing and thawing a guest's file systems through QEMU's guest agent.

A guest that is frozen for a snapshot is thawed when its time is up, also if the daemon was
restarted meanwhile: the time stands in the domain's metadata, by a clock that nobody steps.
https://wiki.qemu.org/Features/GuestAgent
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Callable

import libvirt

from vdsmcinder.errors import (
    AgentUnavailable,
    FreezeFailed,
    ResourceUnavailable,
    SnapshotFailed,
    ThawFailed,
    VdsmCinderError,
)
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.disk_lookup import DiskNames, check_drives
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.parts.freeze_state import LateThaw, left_to_thaw_s, thaw_mark
from vdsmcinder.virt.vm.status import Status
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# What libvirt says when there is no agent, or none that answers.
_NO_ANSWER = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    }
)
_RETRY_S = 5.0
_MARGIN_S = 5.0


async def freeze(vm: VM) -> None:
    """Freeze the guest's file systems, until somebody thaws them.

    Raises VMIsDown (6), AgentUnavailable (19), FreezeFailed (76); the guest runs on as it was then.
    """
    async with vm.freezing.lock:
        vm.require_running("frozen")
        await _freeze(vm)


async def thaw(vm: VM) -> None:
    """Thaw the guest's file systems.

    Raises VMIsDown (6), AgentUnavailable (19), and ThawFailed (77), also for a guest that had to be
    thawed before: then what was to happen while it was frozen may have come too late.
    """
    async with vm.freezing.lock:
        vm.require_running("thawed")
        late = vm.freezing.take_late()
        if late is not None:
            raise ThawFailed(
                f"VM {vm.id}'s guest has been thawed already, as it had been frozen for "
                f"{late.frozen_s:g} s; a snapshot that was not complete by then is not consistent, "
                "take it again",
                frozenSeconds=late.frozen_s,
            )
        await _ask(vm, _fs_thaw, "thawed", ThawFailed)
        vm.freezing.end()


async def prepare_snapshot(
    vm: VM,
    drives: Sequence[DiskNames],
    memory: bool,
    frozen: bool,
    limit_s: float | None,
) -> None:
    """Freeze the guest so that the storage side can make snapshots of its RBD images.

    When this returns, the snapshots may be made; then thaw() is to be called. If it is not within
    limit_s seconds (vms.snapshot_freeze_s where None), the guest is thawed and on_thaw called.
    drives: the disks; none means all. memory: whether the guest's is asked for as well.
    frozen: the caller has frozen the guest already; the time counts all the same.
    Raises VMIsDown (6), SnapshotFailed (48); the guest runs on as it was then.
    """
    async with vm.freezing.lock:
        vm.require_running("made ready for a snapshot")
        if memory:
            raise SnapshotFailed(
                f"VM {vm.id}: snapMemory is set, but the memory of a VM with Ceph disks cannot be "
                "part of a snapshot; leave it out",
                field="snapMemory",
            )
        check_drives(vm.id, vm.domain, drives)
        seconds = vm.services.options.snapshot_freeze_s if limit_s is None else limit_s
        await _mark(vm, thaw_mark(seconds))
        if not frozen:
            try:
                await _freeze(vm)
            except VdsmCinderError as e:
                with contextlib.suppress(VdsmCinderError):
                    await _mark(vm, "")
                raise SnapshotFailed(e.message) from e
        _limit(vm, seconds, seconds)


def recover(vm: VM) -> None:
    """Take care of a guest that was frozen for a time when the daemon ended."""
    thaw_by, most_s = vm.domain.metadata.thaw_by, vm.services.options.snapshot_freeze_s
    if thaw_by is not None and vm.running and not vm.freezing.limited:
        left_s = left_to_thaw_s(thaw_by, most_s)
        log.warning("the guest of %s was left frozen; it is thawed in %.1f s", vm.name, left_s)
        _limit(vm, left_s, most_s)


def _limit(vm: VM, left_s: float, frozen_s: float) -> None:
    loop = asyncio.get_running_loop()
    late = LateThaw(frozen_s)
    vm.freezing.limit(loop.call_later(left_s, lambda: vm.spawn(_thaw_late(vm, late))))


async def _thaw_late(vm: VM, late: LateThaw) -> None:
    """The time of a frozen guest is up: thaw it, and try again until it is."""
    told = False
    while vm.running and vm.freezing.limited:
        async with vm.freezing.lock:
            if not vm.freezing.limited:
                return
            failure = await _try_to_thaw(vm)
            if failure is None:
                vm.freezing.thawed_late(late)
        if failure is None or not told:
            log.warning("the guest of %s was left frozen; thawed: %s", vm.name, failure or "yes")
            vm.services.on_thaw(vm, LateThaw(late.frozen_s, failure))
            told = True
        if failure is not None:
            await asyncio.sleep(_RETRY_S)


async def _try_to_thaw(vm: VM) -> str | None:
    """Why the guest could not be thawed; None if it is."""
    try:
        await _ask(vm, _fs_thaw, "thawed", ThawFailed)
    except VdsmCinderError as e:
        return e.message
    return None


async def _freeze(vm: VM) -> None:
    vm.freezing.begin()
    try:
        await _ask(vm, _fs_freeze, "frozen", FreezeFailed)
    except (AgentUnavailable, ResourceUnavailable):
        # An agent that wakes up later may still find the request, and heed it.
        if vm.domain.agent_connected:
            vm.spawn(_undo(vm))
        raise


async def _undo(vm: VM) -> None:
    async with vm.freezing.lock:
        failure = await _try_to_thaw(vm)
    if failure is not None:
        log.warning("%s may be frozen when its agent is back: %s", vm.name, failure)


async def _ask(
    vm: VM, func: Callable[..., None], doing: str, failure: type[VdsmCinderError]
) -> None:
    """Have the agent do something, within vms.agent_timeout_s."""
    if vm.status is Status.PAUSED:
        raise AgentUnavailable(
            f"VM {vm.id}'s guest could not be {doing}: the VM is Paused, so its agent does not "
            "run; continue it with VM.cont first"
        )
    timeout_s = vm.services.options.agent_timeout_s
    try:
        # libvirt waits that long twice: for the agent to be there, then for its answer.
        await vm.call(func, timeout_s, timeout_s=2 * timeout_s + _MARGIN_S)
    except libvirt.libvirtError as e:
        action = f"VM {vm.id}'s guest could not be {doing}"
        if e.get_error_code() in _NO_ANSWER:
            raise AgentUnavailable(
                f"{action}: {libvirt_errors.own_words(e)}; "
                "check that qemu-guest-agent runs in the guest"
            ) from e
        raise failure(
            f"{action}: the agent says: {libvirt_errors.own_words(e)}; look at its log in the guest"
        ) from e


async def _mark(vm: VM, thaw_by: str) -> None:
    """Write into the domain's metadata until when the guest is frozen, or that it is not."""
    await vm.command(_set_thaw_by, thaw_by, doing="marked as frozen", failure=SnapshotFailed)


# What follows runs in the connection's thread pool.


def _fs_freeze(domain: libvirt.virDomain, timeout_s: int) -> None:
    domain.agentSetResponseTimeout(timeout_s)
    domain.fsFreeze()


def _fs_thaw(domain: libvirt.virDomain, timeout_s: int) -> None:
    domain.agentSetResponseTimeout(timeout_s)
    domain.fsThaw()
    _set_thaw_by(domain, "")


def _set_thaw_by(domain: libvirt.virDomain, thaw_by: str) -> None:
    metadata.set_live(domain, {metadata.THAW_BY: thaw_by})
