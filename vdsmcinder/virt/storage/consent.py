# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request vouches for, so that images are used that checks would refuse."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Consent:
    """unchecked: who has an image open need not be known, where that cannot be found out."""

    unchecked: bool = False


NO_CONSENT = Consent()
