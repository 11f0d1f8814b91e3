# SPDX-License-Identifier: GPL-2.0-or-later
"""An object of the API, in no dialect: what a document was read into, or will be written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias, Union
from urllib.parse import quote

from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Kind, Type

# By the field's kind: TEXT and ENUM str, BOOL bool, INT int, DECIMAL float, DATE int (milliseconds
# since the epoch), ONE Entity, MANY a tuple of Entity.
Value: TypeAlias = Union[str, bool, int, float, "Entity", "tuple[Entity, ...]"]


@dataclass(frozen=True)
class Link:
    """Where something is. href: below the API's root, such as /disks/ID/statistics."""

    rel: str
    href: str


@dataclass(frozen=True)
class Entity:
    """One object. href: below the API's root; empty if it has no place of its own there."""

    type: Type
    values: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    id: str = ""
    href: str = ""
    links: tuple[Link, ...] = ()
    actions: tuple[Link, ...] = ()

    def text(self, name: str) -> str | None:
        """The text or word of a field; None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int | None:
        """The whole number of a field; None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, name: str) -> bool | None:
        """The boolean of a field; None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else None

    def one(self, name: str) -> Entity | None:
        """The object of a field; None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, Entity) else None

    def many(self, name: str) -> tuple[Entity, ...] | None:
        """The objects of a list; None if it was not given."""
        value = self.values.get(name)
        return value if isinstance(value, tuple) else None


@dataclass(frozen=True)
class Many:
    """A collection of objects of one type."""

    type: Type
    items: Sequence[Entity]
    href: str = ""


def entity(
    kind: str,
    /,
    *,
    id: str = "",
    href: str = "",
    links: tuple[Link, ...] = (),
    actions: tuple[Link, ...] = (),
    **values: Value | None,
) -> Entity:
    """An object of a type by its name; fields that are None are left out.

    Raises KeyError for a field that the type does not have, and TypeError for a value of another
    kind than its: either is a mistake of ours.
    """
    return filled(kind, values, id=id, href=href, links=links, actions=actions)


def filled(
    kind: str,
    values: Mapping[str, Value | None],
    *,
    id: str = "",
    href: str = "",
    links: tuple[Link, ...] = (),
    actions: tuple[Link, ...] = (),
) -> Entity:
    """The same, of fields by their names."""
    declared = TYPES[kind]
    return Entity(declared, _checked(declared, values), id, href, links, actions)


def reference(kind: str, id: str | None, href: str, **values: Value | None) -> Entity | None:
    """An object by its id and the collection that it is in, such as /disks; None without an id."""
    if not id:
        return None
    return filled(kind, values, id=id, href=below(href, id))


def below(href: str, id: str) -> str:
    """Where something is in a collection; its id is quoted."""
    return f"{href}/{quote(id, safe='')}"


def _checked(declared: Type, values: Mapping[str, Value | None]) -> Mapping[str, Value]:
    known = {name: value for name, value in values.items() if value is not None}
    for name, value in known.items():
        if not isinstance(value, _HELD_AS[declared.by_name[name].kind]):
            raise TypeError(f"{declared.name}.{name} is not {type(value).__name__}")
    return MappingProxyType(known)


_HELD_AS: Mapping[Kind, type | tuple[type, ...]] = {
    Kind.TEXT: str,
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.DECIMAL: (float, int),
    Kind.ENUM: str,
    Kind.DATE: int,
    Kind.ONE: Entity,
    Kind.MANY: tuple,
}
