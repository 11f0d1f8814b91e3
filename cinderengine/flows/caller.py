# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has something done."""

from __future__ import annotations

from dataclasses import dataclass

from cinderengine.model.users import User


@dataclass(frozen=True)
class Caller:
    """A user who has logged in, with what leads from their request to events, jobs and logs.

    client: the address that they called from.
    """

    user: User
    correlation_id: str = ""
    client: str = ""
