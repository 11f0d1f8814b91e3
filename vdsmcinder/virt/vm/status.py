# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a VM as a table: every status, every legal step from it, and what causes the step.

libvirt's lifecycle events and our own commands become a Cause; the table says what the VM's status
is then.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Status(enum.Enum):
    """The status of a VM, in the engine's words (contract/wire.md, Events)."""

    WAIT_FOR_LAUNCH = "WaitForLaunch"
    POWERING_UP = "Powering up"
    UP = "Up"
    PAUSED = "Paused"
    POWERING_DOWN = "Powering down"
    REBOOT_IN_PROGRESS = "RebootInProgress"
    MIGRATION_SOURCE = "Migration Source"
    MIGRATION_DESTINATION = "Migration Destination"
    SAVING_STATE = "Saving State"
    RESTORING_STATE = "Restoring state"
    DOWN = "Down"


class Cause(enum.Enum):
    """What can change a VM's status."""

    LAUNCH = "we asked libvirt to start it"
    RUNNING = "its CPUs run"
    SUSPENDED = "its CPUs are stopped"
    POWER_DOWN = "it was asked to shut down, or is doing so"
    POWER_DOWN_IGNORED = "the guest did not heed the request to shut down"
    REBOOT = "it was asked to reboot"
    MIGRATES = "it is to go to another host"
    ARRIVES = "it comes from another host"
    STOPPED = "there is no QEMU process any more, or there never was"


# How to read it: in the status of the row, the cause on the left leads to the status on the right.
# A cause that a row does not name leaves the status as it is; after() tells that by returning None.
# Down is final: a VM that is to run again is destroyed and created anew.
# While a VM migrates, libvirt's events go to its migration (virt/vm/migration.py), which says what
# came of it when it is over.
TRANSITIONS: Mapping[Status, Mapping[Cause, Status]] = {
    Status.WAIT_FOR_LAUNCH: {
        Cause.LAUNCH: Status.POWERING_UP,
        Cause.ARRIVES: Status.MIGRATION_DESTINATION,
        Cause.STOPPED: Status.DOWN,
    },
    Status.POWERING_UP: {
        Cause.RUNNING: Status.UP,
        Cause.SUSPENDED: Status.PAUSED,
        Cause.POWER_DOWN: Status.POWERING_DOWN,
        Cause.MIGRATES: Status.MIGRATION_SOURCE,
        Cause.ARRIVES: Status.MIGRATION_DESTINATION,
        Cause.STOPPED: Status.DOWN,
    },
    Status.UP: {
        Cause.SUSPENDED: Status.PAUSED,
        Cause.POWER_DOWN: Status.POWERING_DOWN,
        Cause.REBOOT: Status.REBOOT_IN_PROGRESS,
        Cause.MIGRATES: Status.MIGRATION_SOURCE,
        Cause.STOPPED: Status.DOWN,
    },
    Status.PAUSED: {
        Cause.RUNNING: Status.UP,
        Cause.POWER_DOWN: Status.POWERING_DOWN,
        Cause.STOPPED: Status.DOWN,
    },
    Status.POWERING_DOWN: {
        Cause.POWER_DOWN_IGNORED: Status.UP,
        Cause.STOPPED: Status.DOWN,
    },
    Status.REBOOT_IN_PROGRESS: {
        Cause.RUNNING: Status.UP,
        Cause.SUSPENDED: Status.PAUSED,
        Cause.POWER_DOWN_IGNORED: Status.UP,
        Cause.STOPPED: Status.DOWN,
    },
    Status.MIGRATION_SOURCE: {
        Cause.RUNNING: Status.UP,
        Cause.SUSPENDED: Status.PAUSED,
        Cause.STOPPED: Status.DOWN,
    },
    Status.MIGRATION_DESTINATION: {
        Cause.RUNNING: Status.UP,
        Cause.SUSPENDED: Status.PAUSED,
        Cause.STOPPED: Status.DOWN,
    },
    Status.SAVING_STATE: {
        Cause.RUNNING: Status.UP,
        Cause.STOPPED: Status.DOWN,
    },
    Status.RESTORING_STATE: {
        Cause.RUNNING: Status.UP,
        Cause.SUSPENDED: Status.PAUSED,
        Cause.STOPPED: Status.DOWN,
    },
    Status.DOWN: {},
}


def after(status: Status, cause: Cause) -> Status | None:
    """The status that cause leads to, or None where it changes nothing."""
    return TRANSITIONS[status].get(cause)


class PauseCode(enum.Enum):
    """Why a VM is Paused (contract/wire.md, Events)."""

    NOERR = "NOERR"
    EIO = "EIO"
    ENOSPC = "ENOSPC"
    EPERM = "EPERM"  # another host has opened its images
    EOTHER = "EOTHER"


class ExitCode(enum.IntEnum):
    """How a VM that is Down ended (contract/errors.md)."""

    NORMAL = 0
    ERROR = 1


class ExitReason(enum.IntEnum):
    """Why a VM that is Down ended (contract/errors.md)."""

    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU_CONNECTION = 2
    LIBVIRT_START_FAILED = 3
    MIGRATION_SUCCEEDED = 4
    SAVE_STATE_SUCCEEDED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    LIBVIRT_DOMAIN_MISSING = 9
    DESTROYED_ON_STARTUP = 10
    HOST_SHUTDOWN = 11
    POSTCOPY_MIGRATION_FAILED = 12
    DESTROYED_ON_REBOOT = 13
    DESTROYED_ON_PAUSE_TIMEOUT = 14


@dataclass(frozen=True)
class Exit:
    """How, why and, in one sentence, with what consequence a VM ended."""

    code: ExitCode
    reason: ExitReason
    message: str
