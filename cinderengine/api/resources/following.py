# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameter `follow`: objects that links lead to are put in the links' place.

Names are those of fields or links, with or without underscores; what leads nowhere stays a link,
and is logged.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from types import MappingProxyType
from typing import TypeAlias

from cinderengine.api.types.entity import Entity, Many, Value
from cinderengine.api.types.schema import Kind
from cinderengine.errors import Invalid

log = logging.getLogger(__name__)
# Objects that are looked up for one request.
MOST = 2000
DEEPEST = 4

# What is at an href; None if nothing is.
Get: TypeAlias = Callable[[str], Awaitable[Entity | Many | None]]
# Names that are followed, each with those that are followed from there.
Tree: TypeAlias = "dict[str, Tree]"


class Following:
    """Follows links of one request; what several of them lead to is looked up once."""

    def __init__(self, get: Get) -> None:
        self._get = get
        self._known: dict[str, Entity | Many | None] = {}

    async def into(self, content: Entity | Many, paths: Sequence[Sequence[str]]) -> Entity | Many:
        """What was found, with what the paths lead to. Raises Invalid if that is too much."""
        tree: Tree = {}
        for path in paths:
            at = tree
            for name in path[:DEEPEST]:
                at = at.setdefault(_plain(name), {})
        if isinstance(content, Many):
            items = [await self._one(item, tree) for item in content.items]
            return dataclasses.replace(content, items=items)
        return await self._one(content, tree)

    async def _one(self, content: Entity, tree: Tree) -> Entity:
        values = dict(content.values)
        for name, more in tree.items():
            found = await self._value(content, name, more)
            if found is None:
                log.info("%s has nothing to follow by the name of %.60r", content.type.name, name)
            else:
                values[found[0]] = found[1]
        return dataclasses.replace(content, values=MappingProxyType(values))

    async def _value(self, content: Entity, name: str, more: Tree) -> tuple[str, Value] | None:
        """The field of that name, with what it leads to; None if it leads nowhere."""
        field = next((f for f in content.type.fields if _plain(f.name) == name), None)
        if field is None or field.kind not in {Kind.ONE, Kind.MANY}:
            return None
        value = content.values.get(field.name)
        if isinstance(value, Entity):
            return field.name, await self._whole(value, more)
        if isinstance(value, tuple):
            return field.name, tuple([await self._whole(item, more) for item in value])
        link = next((link for link in content.links if _plain(link.rel) == name), None)
        many = await self._look_up(link.href) if link else None
        if isinstance(many, Many):
            return field.name, tuple([await self._one(item, more) for item in many.items])
        return None

    async def _whole(self, part: Entity, more: Tree) -> Entity:
        found = await self._look_up(part.href) if part.href else None
        return await self._one(found if isinstance(found, Entity) else part, more)

    async def _look_up(self, href: str) -> Entity | Many | None:
        if href not in self._known:
            if len(self._known) == MOST:
                raise Invalid(f"more than {MOST} objects are to be followed; ask for fewer by max")
            self._known[href] = await self._get(href)
        return self._known[href]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
