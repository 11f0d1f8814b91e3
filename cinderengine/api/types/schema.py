# SPDX-License-Identifier: GPL-2.0-or-later
"""What a type of the API is made of: fields with their names in both versions and their kinds.

The tables themselves stand in the other modules of this room; names are oVirt's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from functools import cached_property


class Version(IntEnum):
    """A version of the API, as the header `Version` and the prefixes v3 and v4 have it."""

    V3 = 3
    V4 = 4


class Media(Enum):
    """How a body is written."""

    XML = "application/xml"
    JSON = "application/json"


class Kind(StrEnum):
    """What a field holds, as the documentation says it."""

    TEXT = "text"
    BOOL = "boolean"
    INT = "integer"
    DECIMAL = "decimal"
    ENUM = "enum"
    DATE = "date"
    ONE = "object"
    MANY = "list"


@dataclass(frozen=True)
class Field:
    """A member of a type.

    name, v3: its names in version 4 and 3. of: the type of what it holds, for objects and lists.
    words: what an enum may be when it is read; empty is any word.
    state: in version 3 the word stands in an element `state` of its own.
    attribute: in version 3 it is an attribute. echo: a further name, under which version 3 writes
    it as well. secret: it is read and never written.
    """

    name: str
    kind: Kind
    v3: str
    of: str = ""
    words: tuple[str, ...] = ()
    state: bool = False
    attribute: bool = False
    echo: str = ""
    secret: bool = False

    def named(self, version: Version) -> str:
        """Its name in a version."""
        return self.v3 if version is Version.V3 else self.name


@dataclass(frozen=True)
class Type:
    """A type: the elements that stand for one and for many of it, and its fields in order.

    root, roots: what version 4 calls them at the top of a document, where that is another name.
    """

    name: str
    plural: str
    fields: tuple[Field, ...]
    root: str = ""
    roots: str = ""

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Its fields by their names in version 4, which are those of Entity.values."""
        return {field.name: field for field in self.fields}

    @cached_property
    def _read(self) -> Mapping[Version, Mapping[str, Field]]:
        echoes = {field.echo: field for field in self.fields if field.echo}
        third = {field.v3: field for field in self.fields}
        return {
            Version.V3: {**echoes, **self.by_name, **third},
            Version.V4: {**echoes, **third, **self.by_name},
        }

    def field(self, name: str, version: Version) -> Field | None:
        """The field that a document of a version calls so; the other version's name does, too."""
        return self._read[version].get(name)

    @cached_property
    def guarded(self) -> bool:
        """Whether what is sent for it has secrets, so that no value of it is repeated in words."""
        return any(field.secret for field in self.fields)

    def top(self, version: Version) -> str:
        """The element of one of it at the top of a document."""
        return self.name if version is Version.V3 or not self.root else self.root

    def top_of_many(self, version: Version) -> str:
        """The element of a collection of it at the top of a document."""
        return self.plural if version is Version.V3 or not self.roots else self.roots


def text(name: str, v3: str = "", *, attribute: bool = False, secret: bool = False) -> Field:
    """Text."""
    return Field(name, Kind.TEXT, v3 or name, attribute=attribute, secret=secret)


def flag(name: str) -> Field:
    """True or false."""
    return Field(name, Kind.BOOL, name)


def number(name: str, *, attribute: bool = False, echo: str = "") -> Field:
    """A whole number; of bytes where it is a size."""
    return Field(name, Kind.INT, name, attribute=attribute, echo=echo)


def decimal(name: str) -> Field:
    """A number that need not be whole."""
    return Field(name, Kind.DECIMAL, name)


def word(name: str, *words: str) -> Field:
    """One of some words; of any when none is given."""
    return Field(name, Kind.ENUM, name, words=words)


def status(name: str = "status") -> Field:
    """A status: what the engine tells, so that any word is read."""
    return Field(name, Kind.ENUM, name, state=True)


def date(name: str) -> Field:
    """A point in time: milliseconds since the epoch here, ISO 8601 in documents."""
    return Field(name, Kind.DATE, name)


def one(name: str, of: str = "") -> Field:
    """An object of the type `of`, whose name the field has if none is given."""
    return Field(name, Kind.ONE, name, of=of or name)


def many(name: str, of: str) -> Field:
    """A list of objects of the type `of`, each in an element with that type's name."""
    return Field(name, Kind.MANY, name, of=of)


# What nearly every type has.
NAMED = (text("name"), text("description"), text("comment"))
