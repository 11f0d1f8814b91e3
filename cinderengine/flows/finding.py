# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds what a request names, or says that it is not there."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Connection

from cinderengine.errors import Conflict, Incomplete, Invalid, NotFound
from cinderengine.jobs import book
from cinderengine.model.domains import StorageDomain
from cinderengine.store.rows import Rows

T = TypeVar("T")
LONGEST_NAME = 255


def needed(conn: Connection, rows: Rows[T], row_id: str, what: str, **within: Any) -> T:
    """The object of an id. what: its kind in words. within: what it must belong to, besides.

    Raises NotFound.
    """
    found = rows.find(conn, id=row_id, **within)
    if found is None:
        raise NotFound(f"no {what} has the id {row_id}; list those that there are")
    return found


def named(name: str, what: str) -> str:
    """A name that a new object of that kind may have. Raises Incomplete, Invalid."""
    if not name.strip():
        raise Incomplete(f"the {what} has no name; give it one")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise Invalid(
            f"the name of the {what} is too long or has characters that cannot be shown; "
            f"give it one of at most {LONGEST_NAME} printable characters"
        )
    return name


def unused(conn: Connection, rows: Rows[Any], what: str, but: str = "", **unique: Any) -> None:
    """Make sure that no other object has a value. but: the id of one that may. Raises Conflict."""
    for name, value in unique.items():
        other = rows.find(conn, **{name: value})
        if other is not None and other.id != but:
            raise Conflict(f"the {name} {value} is that of another {what}; choose another one")


def idle(conn: Connection, domain: StorageDomain) -> None:
    """Make sure that no job of a storage domain or of its disks goes on. Raises Conflict."""
    going_on = book.open_about(conn, domain_id=domain.id)
    if going_on:
        raise Conflict(
            f"a job of storage domain {domain.name} goes on ({going_on[0].description}); "
            "wait until it is over"
        )
