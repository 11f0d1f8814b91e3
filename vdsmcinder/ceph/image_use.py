# SPDX-License-Identifier: GPL-2.0-or-later
"""How a disk uses an image: what ceph/worker.py is asked of it, and what its answer is judged by.

Asked before QEMU opens an image, and for an operator who wants to know.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph.fault_kinds import FULL, KINDS, CephFault, Kind

# A claim that is not renewed lapses after so many seconds.
CLAIM_S = 30
_EXCLUSIVE_LOCK = 1 << 2  # RBD_FEATURE_EXCLUSIVE_LOCK
# librbd's own locks; those that people take with 'rbd lock add' have other cookies.
_AUTOMATIC = "auto "


@dataclass(frozen=True)
class Claim:
    """A claim of an image by who is about to open it; virt/storage/image_locks.py says what for.

    cookie: tells one claimant's claims from another's. owner: for whom it is, in words.
    """

    cookie: str
    owner: str

    def params(self) -> dict[str, Any]:
        """As ceph/worker.py takes it."""
        return {"cookie": self.cookie, "owner": self.owner, "duration_s": CLAIM_S}


class Others(enum.Enum):
    """Who beside the disk's VM may have its image open; see ImageUse.held_elsewhere()."""

    ANYBODY = "anybody: it is shared, or only read"
    NOBODY = "nobody: the VM is not there yet"
    SOURCE = "the host that the VM comes from"
    SOURCE_AND_HERE = "that host, and this one, where a copy of the VM has just ended"
    HERE = "this host, where the VM is already"
    OWN = "its own QEMU process, which has opened it just now"


_FAULTS: Mapping[Others, Kind] = {
    Others.NOBODY: Kind.IN_USE,
    Others.SOURCE: Kind.IN_USE_TOO,
    Others.SOURCE_AND_HERE: Kind.IN_USE_TOO,
    Others.HERE: Kind.IN_USE_THERE,
    Others.OWN: Kind.IN_USE,
}
# Where the VM's QEMU has the image open, and need not wait for room to open it.
_OPEN_ALREADY = (Others.HERE, Others.OWN)


@dataclass(frozen=True)
class ImageUse:
    """An image as a disk uses it."""

    path: str
    snapshot: str | None
    others: Others
    readonly: bool

    @property
    def exclusive(self) -> bool:
        """Whether nobody else may have it open, so that it is claimed while it is opened.

        No claim is made for a VM that comes: whom a claim keeps away, the source does already,
        which has the image open.
        """
        return self.others in (Others.NOBODY, Others.OWN)

    @property
    def writes(self) -> bool:
        """Whether the disk may be written to."""
        return not self.readonly and self.snapshot is None

    def question(self, claim: Claim | None) -> dict[str, Any]:
        """What ceph/worker.py's _inspect() takes. claim: what an exclusive disk claims it with."""
        claimed = claim.params() if claim is not None and self.exclusive else None
        return {
            "path": self.path,
            "snapshot": self.snapshot,
            "claim": claimed,
            "writes": self.writes,
        }

    def held_elsewhere(self, found: Mapping[str, Any]) -> CephFault | None:
        """What _inspect() found of others that keep the disk from using the image."""
        if self.others is Others.ANYBODY:
            return None
        strangers = self._strangers(found["watchers"])
        if strangers:
            return CephFault(_FAULTS[self.others], clients(strangers))
        locks = [lock for lock in found["locks"] if not lock["cookie"].startswith(_AUTOMATIC)]
        if locks:
            holders = (f"{k['cookie']!r} by {k['client']} at {k['address']}" for k in locks)
            return CephFault(Kind.LOCKED, ", ".join(holders))
        return None

    def _strangers(self, watchers: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Those who have it open though they should not, with whom they cannot be told from.

        Which host a VM comes from shows in no address: that of its storage network, which it had
        when QEMU connected, need not be one that its daemon knows. That it is but one host does.
        """
        if self.others is Others.NOBODY:
            return watchers
        if self.others is Others.OWN:
            return watchers if len(watchers) > 1 else ()
        if self.others is not Others.SOURCE:
            watchers = [w for w in watchers if not w["here"]]
        if self.others is Others.HERE:
            return watchers
        return watchers if len({w["address"] for w in watchers}) > 1 else ()

    def unfit(self, found: Mapping[str, Any]) -> CephFault | None:
        """What _inspect() found of the image itself that keeps the disk from using it."""
        if found["unknown"] and not self.readonly:
            return CephFault(Kind.FEATURES, f"{found['unknown']:#x}")
        fault = self.unwritable(found) or self.full(found)
        if fault is not None and not (fault.kind in FULL and self.others in _OPEN_ALREADY):
            return fault
        if self.readonly:
            return None
        # Of a VM that runs already, here or where it comes from, it was decided when it started.
        guarded = found["features"] & _EXCLUSIVE_LOCK or self.others is not Others.NOBODY
        return None if guarded else CephFault(Kind.UNGUARDED)

    def unwritable(self, found: Mapping[str, Any]) -> CephFault | None:
        """What _inspect() found that keeps the disk from writing to the image now."""
        if self.readonly:
            return None
        if not found["primary"]:
            return CephFault(Kind.SECONDARY)
        dead = self.left_locked(found)
        return CephFault(Kind.DENIED_BLOCKLIST, dead) if dead else self.full(found)

    def full(self, found: Mapping[str, Any]) -> CephFault | None:
        """Which pool that _inspect() found full keeps the disk from being opened or written to.

        QEMU opens an image as if it wrote to it, whatever the disk says, and so begins to watch it,
        which waits for room in the image's own pool.
        """
        own = self.path.partition("/")[0]
        pools = ((p, r) for p, r in found["room"].items() if self.writes or p == own)
        faults = (CephFault(KINDS[room], pool) for pool, room in pools if KINDS.get(room) in FULL)
        return next(faults, None)

    def lacks_blocklist(self, found: Mapping[str, Any]) -> bool:
        """Whether nothing could be written to the image if its VM's host died now."""
        return self.writes and not found["may_blocklist"]

    def left_locked(self, found: Mapping[str, Any]) -> str:
        """The dead client whose lock cannot be taken over, in words; "" for none.

        librbd has a client that does not watch the image any more blocklisted, and then takes
        over its lock; the user has to be allowed to.
        """
        if not self.lacks_blocklist(found):
            return ""
        watching = {f"client.{w['client']}" for w in found["watchers"]}
        held = [k for k in found["locks"] if k["cookie"].startswith(_AUTOMATIC)]
        dead = (f"{k['client']} at {k['address']} has it locked" for k in held)
        return ", ".join(words for words, k in zip(dead, held) if k["client"] not in watching)


def clients(watchers: Sequence[Mapping[str, Any]]) -> str:
    """Those that have an image open, in words."""
    return ", ".join(f"client.{w['client']} at {w['address']}" for w in watchers)
