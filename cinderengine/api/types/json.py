# SPDX-License-Identifier: GPL-2.0-or-later
"""The API's JSON, read and written by the table of types.

As oVirt writes it: numbers and booleans are strings, times are numbers, in milliseconds since the
epoch; a collection has the name of one of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cinderengine.api.types.document import SURROUNDINGS, Document, Reading, made
from cinderengine.api.types.entity import Entity, Link, Many, Value
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Field, Kind, Type, Version
from cinderengine.api.types.values import (
    LATEST_MS,
    LONGEST,
    printable,
    read,
    refused,
    too_long,
    written,
)
from cinderengine.errors import Invalid


def reads(body: bytes, declared: Type, version: Version) -> Document:
    """The object of that type in a document. Raises Invalid that says what is wrong with it."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Invalid(f"The body is not JSON ({printable(str(e))}); send a {declared.name}.") from e
    if not isinstance(given, dict):
        raise Invalid(f"The body is no object; send the members of a {declared.name}.")
    reader = _Reader(version)
    return Document(reader.object(given, declared, (declared.name,)), reader.reading.ignored)


def writes(content: Entity | Many, version: Version, base: str) -> bytes:
    """A document. base: the prefix of the API's root that hrefs are given."""
    writer = _Writer(version, base)
    if isinstance(content, Many):
        items = [writer.members(item) for item in content.items]
        return _bytes({content.type.top(version): items} if items else {})
    return _bytes(writer.members(content))


def _bytes(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> str | None:
    """A JSON scalar as text; None for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(value, "f").rstrip("0").rstrip(".")
    if isinstance(value, int):
        # Python refuses to write longer ones, and no field holds them.
        return str(value) if value.bit_length() < 128 else "9" * 40
    return value if isinstance(value, str) else None


class _Reader:
    def __init__(self, version: Version) -> None:
        self._version = version
        self.reading = Reading()

    def object(self, given: dict[str, Any], declared: Type, path: Sequence[str]) -> Entity:
        self.reading.enter(path)
        values: dict[str, Value] = {}
        for name, value in given.items():
            found = declared.field(name, self._version)
            if found is not None and value is not None:
                values[found.name] = self._value(value, declared, found, (*path, name))
            elif found is None and name not in SURROUNDINGS:
                self.reading.ignore(path, printable(name))
        # A processor's id in version 3 is its type.
        id = None if declared.field("id", self._version) else _plain(given.get("id"))
        return made(declared, values, id or "", _plain(given.get("href")) or "")

    def _value(self, given: Any, owner: Type, field: Field, path: Sequence[str]) -> Value:
        if field.kind is Kind.ONE:
            if not isinstance(given, dict):
                raise refused(owner, field, _plain(given))
            return self.object(given, TYPES[field.of], path)
        if field.kind is Kind.MANY:
            return self._list(given, owner, field, path)
        if field.state and isinstance(given, dict):
            given = given.get("state")
        if field.kind is Kind.DATE and type(given) is int and 0 <= given <= LATEST_MS:
            return given
        plain = _plain(given)
        if plain is None:
            raise refused(owner, field)
        return read(owner, field, plain)

    def _list(
        self, given: Any, owner: Type, field: Field, path: Sequence[str]
    ) -> tuple[Entity, ...]:
        inner = TYPES[field.of]
        if isinstance(given, dict):
            given = given.get(inner.name, [])
        members = [given] if isinstance(given, dict) else given
        if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
            raise refused(owner, field, _plain(given))
        if len(members) > LONGEST:
            raise too_long(owner, field)
        return tuple(self.object(member, inner, path) for member in members)


class _Writer:
    def __init__(self, version: Version, base: str) -> None:
        self._version = version
        self._base = base

    def members(self, content: Entity) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field in content.type.fields:
            value = content.values.get(field.name)
            if value is None or field.secret:
                continue
            found[field.named(self._version)] = written_ = self._value(field, value)
            if field.echo and self._version is Version.V3:
                found[field.echo] = written_
        if content.actions:
            found["actions"] = {"link": self._links(content.actions)}
        if content.links:
            found["link"] = self._links(content.links)
        if content.href:
            found["href"] = self._base + content.href
        if content.id:
            found["id"] = content.id
        return found

    def _links(self, links: Sequence[Link]) -> list[dict[str, str]]:
        return [{"href": self._base + link.href, "rel": link.rel} for link in links]

    def _value(self, field: Field, value: Value) -> Any:
        if isinstance(value, Entity):
            return self.members(value)
        if isinstance(value, tuple):
            return {field.of: [self.members(item) for item in value]}
        if field.kind is Kind.DATE:
            return value
        plain = written(field, value)
        return {"state": plain} if field.state and self._version is Version.V3 else plain
