# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's events and states mean for a VM, as tables.

The numbers that libvirt gives become a Change. Follows
https://libvirt.org/html/libvirt-libvirt-domain.html (virDomainEventType, virDomainState).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import libvirt

from vdsmcinder.virt.vm.status import Cause, Exit, ExitCode, ExitReason, PauseCode


@dataclass(frozen=True)
class Change:
    """Something that happened to a VM: the cause, and what goes with Paused and with Down."""

    cause: Cause
    pause_code: PauseCode | None = None
    exit: Exit | None = None


def _ended(code: ExitCode, reason: ExitReason, message: str) -> Change:
    return Change(Cause.STOPPED, exit=Exit(code, reason, message))


RUNNING = Change(Cause.RUNNING)
PAUSED_BY_US = Change(Cause.SUSPENDED, PauseCode.NOERR)
PAUSED_BY_IO_ERROR = Change(Cause.SUSPENDED, PauseCode.EIO)
PAUSED_OTHERWISE = Change(Cause.SUSPENDED, PauseCode.EOTHER)
POWERING_DOWN = Change(Cause.POWER_DOWN)
MIGRATES = Change(Cause.MIGRATES)
ARRIVES = Change(Cause.ARRIVES)

GUEST_SHUT_DOWN = _ended(
    ExitCode.NORMAL, ExitReason.USER_SHUTDOWN, "The guest shut itself down, or its user did."
)
ADMIN_SHUT_DOWN = _ended(
    ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "The VM was shut down at the engine's request."
)
DESTROYED = _ended(
    ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "The VM was destroyed by an administrator."
)
GUEST_CRASHED = _ended(
    ExitCode.ERROR,
    ExitReason.GENERIC_ERROR,
    "The guest crashed; look at its console and at QEMU's log on the host.",
)
QEMU_LOST = _ended(
    ExitCode.ERROR,
    ExitReason.LOST_QEMU_CONNECTION,
    "The VM's QEMU process ended unexpectedly; look at its log in /var/log/libvirt/qemu.",
)
MIGRATED_AWAY = _ended(
    ExitCode.NORMAL, ExitReason.MIGRATION_SUCCEEDED, "The VM migrated to another host."
)
DESTROYED_ON_REBOOT = _ended(
    ExitCode.NORMAL,
    ExitReason.DESTROYED_ON_REBOOT,
    "The VM was ended as its guest rebooted, so that it can be started anew.",
)
DID_NOT_ARRIVE = _ended(
    ExitCode.ERROR,
    ExitReason.MIGRATION_FAILED,
    "The VM did not arrive: its migration to this host failed, and the other host has it still.",
)
POSTCOPY_FAILED = _ended(
    ExitCode.ERROR,
    ExitReason.POSTCOPY_MIGRATION_FAILED,
    "The VM was lost: it ran on one host, some of its memory was still on the other, and its QEMU "
    "process on one of them ended.",
)
SAVED = _ended(
    ExitCode.NORMAL, ExitReason.SAVE_STATE_SUCCEEDED, "The VM's state was saved and it ended."
)
NOT_RUNNING = _ended(
    ExitCode.ERROR,
    ExitReason.HOST_SHUTDOWN,
    "The VM does not run, and libvirt does not know why: the host has probably been restarted, or "
    "this daemon while it created the VM.",
)
START_LOST = _ended(
    ExitCode.ERROR,
    ExitReason.LIBVIRT_START_FAILED,
    "The VM could not be started: libvirt went away meanwhile, and does not run it.",
)
DOMAIN_GONE = _ended(
    ExitCode.ERROR,
    ExitReason.LIBVIRT_DOMAIN_MISSING,
    "The VM's libvirt domain is gone: somebody other than this daemon removed it.",
)

# Events that are not in this table, STARTED among them, do not change a status: what follows a
# start is told by RESUMED or SUSPENDED.
STOPPED_DETAILS: Mapping[int, Change] = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: GUEST_SHUT_DOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: GUEST_CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: MIGRATED_AWAY,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: SAVED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: QEMU_LOST,
}
SUSPENDED_DETAILS: Mapping[int, Change] = {
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED: PAUSED_BY_US,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR: PAUSED_BY_IO_ERROR,
}
SHUTOFF_REASONS: Mapping[int, Change] = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: GUEST_SHUT_DOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: QEMU_LOST,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: MIGRATED_AWAY,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: QEMU_LOST,
}
PAUSED_REASONS: Mapping[int, Change] = {
    libvirt.VIR_DOMAIN_PAUSED_USER: PAUSED_BY_US,
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: PAUSED_BY_US,
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: PAUSED_BY_IO_ERROR,
}


def migrated_to(host: str) -> Change:
    """MIGRATED_AWAY, with what libvirt does not tell: where to."""
    return _ended(
        ExitCode.NORMAL, ExitReason.MIGRATION_SUCCEEDED, f"The VM migrated to host {host}."
    )


def from_event(event: int, detail: int) -> Change | None:
    """The change that a lifecycle event tells of, or None where it does not matter to a status."""
    if event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
        return RUNNING
    if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
        return SUSPENDED_DETAILS.get(detail, PAUSED_OTHERWISE)
    if event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
        return POWERING_DOWN
    if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
        return STOPPED_DETAILS.get(detail, QEMU_LOST)
    if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
        return GUEST_CRASHED
    return None


def from_state(state: int, reason: int) -> Change:
    """The change that leads to what virDomainGetState tells, for VMs that were not watched."""
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return PAUSED_REASONS.get(reason, PAUSED_OTHERWISE)
    if state == libvirt.VIR_DOMAIN_SHUTDOWN:
        return POWERING_DOWN
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return SHUTOFF_REASONS.get(reason, NOT_RUNNING)
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return GUEST_CRASHED
    return RUNNING
