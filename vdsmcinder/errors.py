# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that a caller can receive, one class for each code that engines switch on.

Each message is one sentence with the object, the cause and the remedy; data has what a program may
want of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vdsmcinder.cephx_keys import masked


class VdsmCinderError(Exception):
    """Something that a verb could not do, in words for an operator.

    message: one sentence that names the object, the cause and the remedy.
    data: the parts of that sentence as fields, for programs; JSON-serialisable, never a secret.
    CEPHX keys are masked in both.
    code: the number on the wire (contract/errors.md), fixed by the class.
    """

    code: ClassVar[int] = 100

    def __init__(self, message: str, **data: Any) -> None:
        self.message = masked(message)
        super().__init__(self.message)
        self.data: Mapping[str, Any] = {name: _masked(value) for name, value in data.items()}


def _masked(value: Any) -> Any:
    return masked(value) if isinstance(value, str) else value


class ParseError(VdsmCinderError):
    """JSON-RPC: the body is not JSON."""

    code = -32700


class InvalidRequest(VdsmCinderError):
    """JSON-RPC: the body is JSON but not a request."""

    code = -32600


class NoSuchVerb(VdsmCinderError):
    """JSON-RPC: the method is not one of ours."""

    code = -32601


class InvalidParams(VdsmCinderError):
    """JSON-RPC: a parameter is absent or has the wrong type."""

    code = -32602


class InternalError(VdsmCinderError):
    """JSON-RPC: the daemon could not make a reply."""

    code = -32603


class NoSuchVM(VdsmCinderError):
    """No VM of that id is known to this host."""

    code = 1


class VMExists(VdsmCinderError):
    """A VM of that id is known already."""

    code = 4


class VMIsDown(VdsmCinderError):
    """The verb needs a running VM."""

    code = 6


class CreateFailed(VdsmCinderError):
    """The VM could not be created."""

    code = 9


class PeerUnreachable(VdsmCinderError):
    """The other host of a migration cannot be reached."""

    code = 10


class MissingParameter(VdsmCinderError):
    """A required part of a structured parameter is missing."""

    code = 11


class MigrationFailed(VdsmCinderError):
    """The VM could not be migrated, or the other host cannot run it."""

    code = 12


class ImageNotFound(VdsmCinderError):
    """A drive's image could not be found."""

    code = 13


class OutOfMemory(VdsmCinderError):
    """The host has not enough memory for the VM."""

    code = 14


class Unexpected(VdsmCinderError):
    """A fault of the daemon's own."""

    code = 16


class AgentUnavailable(VdsmCinderError):
    """The guest agent does not answer."""

    code = 19


class UnsupportedDrive(VdsmCinderError):
    """The kind of drive is not one that this host can serve."""

    code = 36


class ResourceUnavailable(VdsmCinderError):
    """libvirt or Ceph cannot be reached now; the same call may succeed later."""

    code = 40


class ChangeDiskFailed(VdsmCinderError):
    """The medium of a drive could not be changed."""

    code = 41


class DestroyFailed(VdsmCinderError):
    """The VM could not be destroyed."""

    code = 42


class NotImplementedYet(VdsmCinderError):
    """The verb belongs to the contract but this version does not serve it."""

    code = 44


class HotplugDiskFailed(VdsmCinderError):
    """The disk could not be plugged into the running VM."""

    code = 45


class HotunplugDiskFailed(VdsmCinderError):
    """The disk could not be unplugged from the running VM."""

    code = 46


class MigrationNotCancelled(VdsmCinderError):
    """There is no migration that can still be ended."""

    code = 47


class SnapshotFailed(VdsmCinderError):
    """The guest could not be made ready for a snapshot of its disks."""

    code = 48


class HotplugNicFailed(VdsmCinderError):
    """The network interface could not be plugged into the running VM."""

    code = 49


class HotunplugNicFailed(VdsmCinderError):
    """The network interface could not be unplugged from the running VM."""

    code = 50


class DuringMigration(VdsmCinderError):
    """The verb would disturb the migration that is under way."""

    code = 51


class UpdateDeviceFailed(VdsmCinderError):
    """A device of the running VM could not be changed."""

    code = 56


class WrongDiskSize(VdsmCinderError):
    """The new size of a disk is not the one that its image has."""

    code = 58


class SetCpusFailed(VdsmCinderError):
    """The number of the running VM's processors could not be changed."""

    code = 60


class PolicyFailed(VdsmCinderError):
    """The VM's policy could not be changed."""

    code = 63


class IoTuneFailed(VdsmCinderError):
    """The limits of a disk's I/O could not be set."""

    code = 64


class HotplugMemoryFailed(VdsmCinderError):
    """Memory could not be plugged into the running VM."""

    code = 70


class SecretMalformed(VdsmCinderError):
    """A secret in the request is malformed; the message never holds its value."""

    code = 72


class SecretRegistrationFailed(VdsmCinderError):
    """libvirt did not take a secret."""

    code = 73


class SecretUnregistrationFailed(VdsmCinderError):
    """libvirt did not remove a secret."""

    code = 74


class UnsupportedOperation(VdsmCinderError):
    """The caller or the VM's state does not allow the verb."""

    code = 75


class FreezeFailed(VdsmCinderError):
    """The guest's file systems could not be frozen."""

    code = 76


class ThawFailed(VdsmCinderError):
    """The guest's file systems could not be thawed, or were thawed too early."""

    code = 77


class NoMigration(VdsmCinderError):
    """The VM does not migrate."""

    code = 81


class TooManyMigrations(VdsmCinderError):
    """As many VMs as may migrate at once do so, and as many as may wait are waiting."""

    code = 82


class HotunplugMemoryFailed(VdsmCinderError):
    """Memory could not be unplugged from the running VM."""

    code = 85


class ResetFailed(VdsmCinderError):
    """The VM could not be reset."""

    code = 90


class InvalidParameter(VdsmCinderError):
    """A part of a structured parameter has a value that is not allowed."""

    code = 91


class Recovering(VdsmCinderError):
    """The list of VMs is not known yet; ask again."""

    code = 99


class OutOfResources(VdsmCinderError):
    """A queue of the daemon is full."""

    code = 1100


class RemoteError(Exception):
    """A daemon that was called answered with an error.

    code, message, data: those of the reply (contract/errors.md).
    """

    def __init__(self, code: int, message: str, data: Mapping[str, Any]) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message
        self.data = data
