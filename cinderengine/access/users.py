# SPDX-License-Identifier: GPL-2.0-or-later
"""Users as they are kept: functions for one transaction each, which raise EngineError."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import Connection, delete

from cinderengine.errors import Conflict, Invalid, NotFound
from cinderengine.model.ids import new_id, now_ms
from cinderengine.model.secret import Secret
from cinderengine.model.users import INTERNAL, User
from cinderengine.store import tables
from cinderengine.store.entities import users

ADMIN = "admin"
SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
# As oVirt's clients write the profile of internal users, and as its API shows it.
PROFILES = {INTERNAL: INTERNAL, f"{INTERNAL}-authz": INTERNAL}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,126}")


def principal(text: str) -> tuple[str, str]:
    """The name and the profile of NAME@PROFILE; a profile that is none is part of the name."""
    name, _, profile = text.rpartition("@")
    if name and profile in PROFILES:
        return name, PROFILES[profile]
    return text, INTERNAL


def check_password(password: Secret) -> Secret:
    """One that may be set. Raises Invalid."""
    if not SHORTEST_PASSWORD <= len(password.reveal()) <= LONGEST_PASSWORD:
        raise Invalid(
            f"a password of {len(password.reveal())} characters is not taken; give one of "
            f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD}"
        )
    return password


def find(conn: Connection, text: str) -> User | None:
    """The user that is called so, with or without profile."""
    name, profile = principal(text)
    return users.find(conn, name=name, profile=profile)


def named(conn: Connection, text: str) -> User:
    """The same. Raises NotFound."""
    found = find(conn, text)
    if found is None:
        raise NotFound(f"user {text} does not exist; cinder-engine user list has those that do")
    return found


def add(conn: Connection, text: str, password_hash: str, *, administrator: bool) -> User:
    """A new one. password_hash: as passwords.hashed() made it. Raises Invalid and Conflict."""
    name, profile = principal(text)
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"{name!r} cannot be a user's name; begin with a letter or digit, and go on with "
            "those and . _ @ -"
        )
    if users.find(conn, name=name, profile=profile) is not None:
        raise Conflict(f"user {name}@{profile} exists already; choose another name")
    user = User(
        id=new_id(),
        name=name,
        profile=profile,
        password_hash=password_hash,
        administrator=administrator,
        created_ms=now_ms(),
    )
    return users.insert(conn, user)


def everybody(conn: Connection) -> Sequence[User]:
    """All users, by name."""
    return sorted(users.all(conn), key=lambda user: user.principal)


def set_password(conn: Connection, text: str, password_hash: str) -> User:
    """Another password; whoever is logged in with the old one is not any more. Raises NotFound."""
    return _changed(conn, named(conn, text), password_hash=password_hash)


def set_enabled(conn: Connection, text: str, enabled: bool) -> User:
    """Whether the user may log in; if not, all logins end. Raises NotFound and Conflict."""
    user = named(conn, text)
    if not enabled:
        _keep_an_administrator(conn, user, "disabled")
    return _changed(conn, user, enabled=enabled)


def remove(conn: Connection, text: str) -> User:
    """Remove the user, with all logins. Raises NotFound and Conflict."""
    user = named(conn, text)
    _keep_an_administrator(conn, user, "removed")
    _end_logins(conn, user)
    users.delete(conn, user.id)
    return user


def _keep_an_administrator(conn: Connection, user: User, what: str) -> None:
    left = [
        other for other in users.all(conn, administrator=True, enabled=True) if other.id != user.id
    ]
    if user.administrator and user.enabled and not left:
        raise Conflict(
            f"user {user.principal} cannot be {what}, because no other administrator could log in "
            "then; make another one first with cinder-engine user add --administrator"
        )


def _changed(conn: Connection, user: User, **changes: object) -> User:
    users.update(conn, user.id, **changes)
    _end_logins(conn, user)
    changed = users.get(conn, user.id)
    assert changed is not None
    return changed


def _end_logins(conn: Connection, user: User) -> None:
    conn.execute(delete(tables.tokens).where(tables.tokens.c.user_id == user.id))
