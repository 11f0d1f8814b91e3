# SPDX-License-Identifier: GPL-2.0-or-later
"""What both sides of a migration share: who may run the VM when, and what they say to each other.

The rule: the source decides, and the destination obeys. At any moment the VM belongs to the source,
until its QEMU process there can run no more and the destination has a whole copy.
virt/migration/outgoing/machine.py says by a table what the source does about each event, and
virt/migration/incoming/machine.py what the destination does.

- The source offers the VM (Peer.offer); the destination checks that it can run it and waits.
- Both domains carry a mark in their metadata: a restarted daemon knows its part by it.
- libvirt copies. With Handover.CONFIRMED the copy is complete and paused when libvirt is done.
- The source says RUN when its QEMU process can run no more; or DROP, when it keeps the VM whatever
  became of the copy. It repeats itself until it is answered, whatever is restarted meanwhile: what
  is owed stands in the VM's metadata. A destination that hears neither asks whether the VM is kept
  there, and else does nothing but tell of it.
- If the source is lost for good in that moment, an operator or an engine says FENCED in its place,
  and vouches that it is off. The destination believes that when no image of the VM is open anywhere
  else any more. A source that comes back all the same asks before it goes on, and gives way.

With Handover.LIBVIRT, which post-copy needs, the destination's libvirt lets the copy run by itself.
Then a DROP is refused by a destination that runs the VM, and the source gives its own up. It does
not in post-copy, while the copy needs what is left on the source. After RUN no more of that comes:
then the destination ends a copy that runs and is not whole.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Protocol

import libvirt
from lxml import etree

from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.secrets.secret import SecretSpec
from vdsmcinder.virt.vm.migration_request import Address


class Handover(enum.Enum):
    """When the copy may run; see option migration.handover."""

    CONFIRMED = "confirmed"
    LIBVIRT = "libvirt"


class Verdict(enum.Enum):
    """What is to become of a VM that was copied, or was to be: the source says RUN or DROP."""

    RUN = "run"
    DROP = "drop"
    FENCED = "fenced"


class Phase(enum.Enum):
    """How far one has come on its way from the source, to follow 'VM x'."""

    WAITING = "waits for its turn to migrate"
    OFFERED = "is being offered to the other host"
    COPYING = "is being copied to the other host"
    CONCLUDING = "is being handed over to the other host"
    OVER = "does not migrate any more"


@dataclass(frozen=True)
class Source:
    """The host that a VM comes from. words: its name. address: of its daemon, if that is known."""

    words: str
    address: Address | None = None


@dataclass(frozen=True)
class Offer:
    """A VM that is to come. xml: its domain as it runs, without passwords.

    source: the host that it comes from. secrets: keys that its disks need, if the source
    hands them over. limit: VMs that may come at once, None for the destination's own. post_copy:
    whether it may come to be moved by post-copy.
    """

    vm_id: str
    migration_id: str
    handover: Handover
    xml: str = field(repr=False)
    source: Source
    secrets: Sequence[SecretSpec] = ()
    limit: int | None = None
    post_copy: bool = False


@dataclass(frozen=True)
class Acceptance:
    """encryption: whether the destination's libvirt has certificates for QEMU's data."""

    encryption: bool


class PeerRefused(Exception):
    """The other daemon answered with an error; code, message, data are those of its reply."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Peer(Protocol):
    """The daemon of another host. Its methods raise PeerUnreachable (10), PeerRefused.

    address: its IP address.
    """

    address: str

    async def offer(self, offer: Offer) -> Acceptance:
        """Announce a VM."""

    async def conclude(self, vm_id: str, migration_id: str, verdict: Verdict) -> int | None:
        """Say what is to become of the copy; returns when that is done.

        After RUN for how long its guest has been running there, in ms; None where that host does
        not know.
        """

    async def keeps(self, vm_id: str, migration_id: str) -> bool:
        """Ask the host that a VM comes from whether it stays there, whatever came of the copy."""

    async def close(self) -> None:
        """Hang up."""


Dial = Callable[[Address], Awaitable[Peer]]


@dataclass(frozen=True)
class Progress:
    """How far a migration is.

    percent: 100 when it is over. post_copy: the VM runs on the other host already. downtime_ms: how
    long the guest stood still, 0 while it has not. remaining, transferred: bytes of its memory.
    """

    percent: int = 0
    post_copy: bool = False
    downtime_ms: int = 0
    remaining: int = 0
    transferred: int = 0


class Migration(Protocol):
    """A VM's migration, as virt/vm/vm.py has one: what libvirt tells goes to it while it lasts."""

    id: str

    @property
    def progress(self) -> Progress:
        """How far it is."""

    @property
    def words(self) -> str:
        """Where it comes from or goes to, to follow 'VM x'."""

    @property
    def remedy(self) -> str:
        """What to do for a verb that it keeps from the VM, as the end of a sentence."""

    def lifecycle(self, event: int, detail: int) -> None:
        """A lifecycle event of the VM's domain."""

    def recheck(self) -> None:
        """libvirt was gone and is back: events may have been missed."""

    async def end(self) -> None:
        """The VM is being destroyed: end it, and see that no copy is left to run."""

    async def over(self) -> None:
        """Return when it is over, or takes longer than a call of libvirt's may."""


class Copies(Protocol):
    """What migrations that failed may have left on other hosts."""

    async def end(self, vm_id: str) -> VdsmCinderError | None:
        """Return when no copy of a VM can run any more; why one may, if that is not to be had."""


def host_uuid(handle: libvirt.virConnect) -> str:
    """This host's UUID as libvirt knows it; runs in the connection's thread pool."""
    return etree.fromstring(handle.getCapabilities()).findtext("host/uuid") or ""


def error_of(refusal: PeerRefused, action: str, failure: type[VdsmCinderError]) -> VdsmCinderError:
    """The error to answer with when the other host refused: its code, where it is one of ours."""
    known = {cls.code: cls for cls in _subclasses(VdsmCinderError) if cls.code > 0}
    return known.get(refusal.code, failure)(f"{action}: {refusal.message}", **refusal.data)


def _subclasses(cls: type[VdsmCinderError]) -> list[type[VdsmCinderError]]:
    found = cls.__subclasses__()
    return [*found, *(below for one in found for below in _subclasses(one))]
