# SPDX-License-Identifier: GPL-2.0-or-later
"""What requests have in common: fields that were given, and objects named by id or by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from cinderengine.api.types.entity import Entity, Value
from cinderengine.errors import Incomplete, NotFound
from cinderengine.store.rows import Rows


class Named(Protocol):
    """What has an id."""

    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=Named)
# What most kinds of objects can be given.
NAMED = {"name": "name", "description": "description", "comment": "comment"}


def given(sent: Entity, fields: Mapping[str, str]) -> dict[str, Any]:
    """The values of fields that were sent, by what the model calls them."""
    found: dict[str, Value] = {
        ours: sent.values[theirs] for theirs, ours in fields.items() if theirs in sent.values
    }
    return dict(found)


def text(sent: Entity, name: str, why: str) -> str:
    """A text that must be there. Raises Incomplete. why: what to give, for the error."""
    value = sent.text(name)
    if not value:
        raise Incomplete(f"the {spoken(sent.type.name)} has no {name}; give {why}")
    return value


def reference(sent: Entity, name: str, why: str) -> Entity:
    """An object that must be named by id or name. Raises Incomplete."""
    value = sent.one(name)
    if value is None or not (value.id or value.text("name")):
        raise Incomplete(f"the {spoken(sent.type.name)} has no {name}; give {why}")
    return value


def referred(conn: Connection, rows: Rows[N], named: Entity) -> N:
    """What an object with an id or a name stands for. Raises NotFound."""
    what = spoken(named.type.name)
    if named.id:
        found = rows.get(conn, named.id)
        if found is None:
            raise NotFound(f"{what} {named.id} does not exist; list those that do")
        return found
    name = named.text("name") or ""
    found = rows.find(conn, name=name)
    if found is None:
        raise NotFound(f"no {what} has the name {name[:255]!r}; list those that there are")
    return found


def spoken(kind: str) -> str:
    """A type's name as people say it."""
    return kind.replace("_", " ")
