# SPDX-License-Identifier: GPL-2.0-or-later
"""Collections that clients look into and that nothing is in."""

from __future__ import annotations

from typing import Any

from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types.entity import Entity


def empty(name: str, kind: str) -> Collection[Entity]:
    """A collection of a type that has nothing yet."""
    return Collection(name, kind, rows=_none, show=_as_it_is)


def is_empty(collection: Collection[Any]) -> bool:
    """Whether nothing is ever in it."""
    return collection.rows is _none


async def _none(call: Call) -> list[Entity]:
    return []


def _as_it_is(call: Call, row: Entity) -> Entity:
    return row


def fixed(name: str, kind: str, *members: Entity, **more: Any) -> Collection[Entity]:
    """A collection of objects that are always the same."""

    async def rows(call: Call) -> list[Entity]:
        return list(members)

    return Collection(name, kind, rows=rows, show=_as_it_is, **more)


PERMISSIONS = empty("permissions", "permission")
STATISTICS = empty("statistics", "statistic")
TAGS = empty("tags", "tag")
