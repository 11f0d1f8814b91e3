# SPDX-License-Identifier: GPL-2.0-or-later
"""Tokens: what somebody who has logged in shows instead of a password.

256 random bits, of which the database has a digest, so that who reads it can show none. Functions
for one transaction each.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_

from cinderengine.model.secret import Secret
from cinderengine.model.users import Token, User
from cinderengine.store import tables
from cinderengine.store.entities import tokens, users

TOKEN_BYTES = 32
# A token's last use is written down no more often, so that reading does not become writing.
USED_EVERY_MS = 60_000


@dataclass(frozen=True)
class Lifetime:
    """How long a token is good without being used, and at most."""

    idle_ms: int
    longest_ms: int


def digest(token: Secret) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def issue(
    conn: Connection, user: User, scope: str, now_ms: int, lifetime: Lifetime
) -> tuple[Secret, Token]:
    """A new token, and what is kept of it."""
    text = Secret(secrets.token_urlsafe(TOKEN_BYTES))
    token = Token(digest(text), user.id, scope, now_ms, now_ms, now_ms + lifetime.longest_ms)
    tokens.insert(conn, token)
    return text, token


def find(
    conn: Connection, token: Secret, now_ms: int, lifetime: Lifetime
) -> tuple[Token, User] | None:
    """The token and whose it is, if it is good still and the user may log in."""
    known = tokens.get(conn, digest(token))
    if known is None or not is_good(known, now_ms, lifetime):
        return None
    user = users.get(conn, known.user_id)
    return (known, user) if user is not None and user.enabled else None


def is_good(token: Token, now_ms: int, lifetime: Lifetime) -> bool:
    """Whether it has neither ended nor been unused for too long."""
    # Its last use may have been somewhat later than is written.
    unused_until_ms = token.used_ms + lifetime.idle_ms + USED_EVERY_MS
    return now_ms < min(token.expires_ms, unused_until_ms)


def is_to_be_touched(token: Token, now_ms: int) -> bool:
    """Whether this use is to be written down."""
    return now_ms - token.used_ms >= USED_EVERY_MS


def touch(conn: Connection, token_id: str, now_ms: int) -> None:
    """It was used now."""
    tokens.update(conn, token_id, used_ms=now_ms)


def revoke(conn: Connection, token: Secret) -> bool:
    """End it; False if there is no such token."""
    return tokens.delete(conn, digest(token))


def sweep(conn: Connection, now_ms: int, lifetime: Lifetime) -> int:
    """Remove those that are of no use any more; how many they were."""
    table = tables.tokens
    unused_since_ms = now_ms - lifetime.idle_ms - USED_EVERY_MS
    stale = or_(table.c.expires_ms <= now_ms, table.c.used_ms <= unused_since_ms)
    return conn.execute(delete(table).where(stale)).rowcount
