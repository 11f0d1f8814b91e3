# SPDX-License-Identifier: GPL-2.0-or-later
"""How a disk uses an image: what ceph/worker.py is asked of it, and what its answer is judged by.

virt/preflight.py looks before QEMU opens an image, ceph/diagnosis.py for an operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph.faults import CephFault, Kind

# A claim that is not renewed lapses after so many seconds.
CLAIM_S = 30
# librbd's own locks; those that people take with 'rbd lock add' have other cookies.
_AUTOMATIC = "auto "


@dataclass(frozen=True)
class Claim:
    """A claim of an image by who is about to open it; virt/claims.py says what for.

    cookie: tells one claimant's claims from another's. owner: for whom it is, in words.
    """

    cookie: str
    owner: str

    def params(self) -> dict[str, Any]:
        """As ceph/worker.py takes it."""
        return {"cookie": self.cookie, "owner": self.owner, "duration_s": CLAIM_S}


@dataclass(frozen=True)
class ImageUse:
    """An image as a disk uses it. exclusive: nobody else may have it open."""

    path: str
    snapshot: str | None
    exclusive: bool
    readonly: bool

    def question(self, claim: Claim | None) -> dict[str, Any]:
        """What ceph/worker.py's _inspect() takes. claim: what an exclusive disk claims it with."""
        claimed = claim.params() if claim is not None and self.exclusive else None
        return {"path": self.path, "snapshot": self.snapshot, "claim": claimed}

    def held_elsewhere(self, found: Mapping[str, Any]) -> CephFault | None:
        """What _inspect() found of others that keep the disk from using the image."""
        if not self.exclusive:
            return None
        if found["watchers"]:
            return CephFault(Kind.IN_USE, clients(found))
        locks = [lock for lock in found["locks"] if not lock["cookie"].startswith(_AUTOMATIC)]
        if locks:
            holders = (f"{k['cookie']!r} by {k['client']} at {k['address']}" for k in locks)
            return CephFault(Kind.LOCKED, ", ".join(holders))
        return None

    def unfit(self, found: Mapping[str, Any]) -> CephFault | None:
        """What _inspect() found of the image itself that keeps the disk from writing to it."""
        if self.readonly:
            return None
        if found["unknown"]:
            return CephFault(Kind.FEATURES, f"{found['unknown']:#x}")
        return None if found["primary"] else CephFault(Kind.SECONDARY)


def clients(found: Mapping[str, Any]) -> str:
    """Those that have an image open, in words."""
    return ", ".join(f"client.{w['client']} at {w['address']}" for w in found["watchers"])
