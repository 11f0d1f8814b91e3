# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects of the API with every field that their types have, and what clients send."""

from __future__ import annotations

from collections.abc import Mapping

from cinderengine.api.types.entity import Entity, Value
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Field, Kind, Type, Version

# What stands in fields that are secrets.
HIDDEN = "not-to-be-seen"


def full(declared: Type, depth: int = 2) -> Entity:
    """An object of a type with all its fields; objects in it have theirs down to a depth."""
    fields = [field for field in declared.fields if depth or field.kind not in _HOLDERS]
    values = {field.name: _value(field, depth) for field in fields}
    id = "" if declared.field("id", Version.V3) else f"id-of-{declared.name}"
    return Entity(declared, values, id=id, href=f"/{declared.plural}/1")


_HOLDERS = {Kind.ONE, Kind.MANY}
_PLAIN: Mapping[Kind, Value] = {
    Kind.BOOL: True,
    Kind.INT: 2**40,
    Kind.DECIMAL: 1.5,
    Kind.DATE: 1_433_075_305_525,
}


def _value(field: Field, depth: int) -> Value:
    match field.kind:
        case Kind.TEXT:
            return HIDDEN if field.secret else f"<{field.name}> & more"
        case Kind.ENUM:
            return field.words[0] if field.words else "ok"
        case Kind.ONE:
            return full(TYPES[field.of], depth - 1)
        case Kind.MANY:
            return (full(TYPES[field.of], depth - 1), full(TYPES[field.of], depth - 1))
    return _PLAIN[field.kind]


def without_secrets(entity: Entity) -> Entity:
    """The object as it is written."""
    values: dict[str, Value] = {}
    for field in entity.type.fields:
        value = entity.values.get(field.name)
        if isinstance(value, Entity):
            values[field.name] = without_secrets(value)
        elif isinstance(value, tuple):
            values[field.name] = tuple(without_secrets(one) for one in value)
        elif value is not None and not field.secret:
            values[field.name] = value
    return Entity(entity.type, values, entity.id, entity.href)
