# SPDX-License-Identifier: GPL-2.0-or-later
"""A document that was read: the object in it, and what it has that its type does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from cinderengine.api.types.entity import Entity, Value
from cinderengine.api.types.schema import Type
from cinderengine.errors import Invalid

# Objects in one another; clients need five. What is deeper is no request.
DEEPEST = 20
# What each object may have besides its fields; what it says is read from elsewhere.
SURROUNDINGS = frozenset({"id", "href", "rel", "link", "actions", "creation_status"})


@dataclass(frozen=True)
class Document:
    """ignored: the paths of fields that no type has, such as disk.colour."""

    entity: Entity
    ignored: Sequence[str]


@dataclass
class Reading:
    """How far a document has been read, for either dialect."""

    ignored: list[str] = field(default_factory=list)

    def enter(self, path: Sequence[str]) -> None:
        """Begin with an object. Raises Invalid if it is in too many others."""
        if len(path) > DEEPEST:
            raise Invalid(f"The body has objects in one another {DEEPEST} deep; send less.")

    def ignore(self, path: Sequence[str], name: str) -> None:
        """Note a field that the type does not have; a few, for names are the sender's."""
        if len(self.ignored) < 20:
            self.ignored.append(".".join((*path, name[:60])))


def made(declared: Type, values: dict[str, Value], id: str, href: str) -> Entity:
    """The object with what was read. Raises Invalid for an id that nothing can have."""
    if len(id) > 255 or not id.isprintable():
        raise Invalid(f"The id of {declared.name} is not one: give a UUID as the API has it.")
    return Entity(declared, MappingProxyType(values), id.strip(), href)
