# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may log in, and who has."""

from __future__ import annotations

from dataclasses import dataclass

INTERNAL = "internal"


@dataclass(frozen=True)
class User:
    """name and profile are unique together. password_hash: as access.passwords made it."""

    id: str
    name: str
    profile: str = INTERNAL
    password_hash: str = ""
    enabled: bool = True
    administrator: bool = False
    created_ms: int = 0

    @property
    def principal(self) -> str:
        """As people write it: NAME@PROFILE."""
        return f"{self.name}@{self.profile}"


@dataclass(frozen=True)
class Token:
    """Somebody who has logged in. id: the digest of what they show, hexadecimal SHA-256."""

    id: str
    user_id: str
    scope: str
    created_ms: int
    used_ms: int
    expires_ms: int
