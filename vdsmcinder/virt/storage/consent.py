# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request vouches for, so that images are used that checks would refuse."""

from __future__ import annotations

from dataclasses import dataclass

from vdsmcinder.ceph.fault_kinds import CephFault, Kind


@dataclass(frozen=True)
class Consent:
    """unchecked: who has an image open need not be known, where that cannot be found out.

    unguarded: images need not have Ceph's feature exclusive-lock.
    """

    unchecked: bool = False
    unguarded: bool = False

    def lets_pass(self, fault: CephFault) -> bool:
        """Whether the image is to be used although."""
        if fault.kind is Kind.UNSEEN:
            return self.unchecked
        return fault.kind is Kind.UNGUARDED and self.unguarded


NO_CONSENT = Consent()
