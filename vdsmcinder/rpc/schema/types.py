# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of the wire: what a parameter may be, and what a result has to be.

Each reads what engines send, leniently where they are lenient, and checks what we answer, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vdsmcinder.fields import kind_of
from vdsmcinder.uuids import is_uuid

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
# Elements that a list in a parameter may have: more than a host has VMs, disks or keys, and few
# enough that reading them keeps nobody waiting.
MOST_ELEMENTS = 4096
_BOOLEANS = {"true": True, "false": False}


class Mismatch(Exception):
    """A value is not of the type that is expected; the words never hold the value itself.

    where: path of the value, such as secrets[0].uuid. expected: the type, in words.
    found: what is there instead, by kind and size.
    """

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where} is {found}; expected {expected}")
        self.where = where
        self.expected = expected
        self.found = found


class Type(Protocol):
    """One type of the contract."""

    @property
    def label(self) -> str:
        """How documentation writes the type."""

    def read(self, value: Any, where: str) -> Any:
        """The value of a parameter as handlers take it. Raises Mismatch."""

    def check(self, value: Any, where: str) -> None:
        """Raise Mismatch unless the value of a result is exactly of this type."""

    def shown(self, value: Any) -> str:
        """The value of a parameter as a log may show it."""


@dataclass(frozen=True)
class Scalar:
    """A type of JSON's own, or a string or number of a certain form.

    is_valid decides on what we answer. convert turns what engines send into a valid value where
    that is possible; public values may stand in a log.
    """

    label: str
    expected: str
    is_valid: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value
    public: bool = False

    def read(self, value: Any, where: str) -> Any:
        converted = self.convert(value)
        self.check(converted, where)
        return converted

    def check(self, value: Any, where: str) -> None:
        if not self.is_valid(value):
            raise Mismatch(where, self.expected, kind_of(value))

    def shown(self, value: Any) -> str:
        return str(value) if self.public else kind_of(value)


@dataclass(frozen=True)
class Enumeration:
    """One of a few strings, or of a few numbers that have names."""

    label: str
    values: Sequence[str | int]
    names: Mapping[int, str]

    def read(self, value: Any, where: str) -> Any:
        self.check(value, where)
        return value

    def check(self, value: Any, where: str) -> None:
        # In Python True is 1; on the wire it is not.
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value not in self.values:
            choices = ", ".join(str(v) for v in self.values)
            raise Mismatch(where, f"one of: {choices}", kind_of(value))

    def shown(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class ListOf:
    """A list whose elements are all of one type."""

    element: Type

    @property
    def label(self) -> str:
        return f"[{self.element.label}]"

    def read(self, value: Any, where: str) -> list[Any]:
        self._check_kind(value, where)
        if len(value) > MOST_ELEMENTS:
            expected = f"at most {MOST_ELEMENTS}; ask for the rest in another request"
            raise Mismatch(where, expected, kind_of(value))
        return [self.element.read(v, f"{where}[{i}]") for i, v in enumerate(value)]

    def check(self, value: Any, where: str) -> None:
        self._check_kind(value, where)
        for i, v in enumerate(value):
            self.element.check(v, f"{where}[{i}]")

    def shown(self, value: Any) -> str:
        return kind_of(value)

    def _check_kind(self, value: Any, where: str) -> None:
        if not isinstance(value, (list, tuple)):
            raise Mismatch(where, f"a list of {self.element.label}", kind_of(value))


@dataclass(frozen=True)
class MapOf:
    """An object with any members, whose names and whose values are each of one type."""

    key: Type
    value: Type

    @property
    def label(self) -> str:
        return f"map {self.key.label} -> {self.value.label}"

    def read(self, value: Any, where: str) -> dict[str, Any]:
        self._check_kind(value, where)
        if len(value) > MOST_ELEMENTS:
            found = f"an object of {len(value)} members"
            raise Mismatch(
                where, f"at most {MOST_ELEMENTS}; send the rest in another request", found
            )
        return {
            self.key.read(k, f"a member's name in {where}"): self.value.read(
                v, f"a member of {where}"
            )
            for k, v in value.items()
        }

    def check(self, value: Any, where: str) -> None:
        self._check_kind(value, where)
        for k, v in value.items():
            # Names of members are strings in JSON, those that stand for numbers too.
            self.key.read(k, f"a member's name in {where}")
            self.value.check(v, f"{where}.{k}")

    def shown(self, value: Any) -> str:
        return kind_of(value)

    def _check_kind(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Mismatch(where, f"an object: {self.label}", kind_of(value))


@dataclass(frozen=True)
class Field:
    """A member of a Record."""

    name: str
    type: Type
    optional: bool


@dataclass(frozen=True)
class Record:
    """An object with named members."""

    label: str
    fields: Mapping[str, Field]

    def read(self, value: Any, where: str) -> dict[str, Any]:
        """As check does, but members that the contract does not know are left out."""
        self._check_kind(value, where)
        self._check_complete(value, where)
        return {
            name: f.type.read(value[name], f"{where}.{name}")
            for name, f in self.fields.items()
            if name in value
        }

    def check(self, value: Any, where: str) -> None:
        self._check_kind(value, where)
        self._check_complete(value, where)
        for name, v in value.items():
            if name not in self.fields:
                raise Mismatch(f"{where}.{name}", f"no such member of {self.label}", kind_of(v))
            self.fields[name].type.check(v, f"{where}.{name}")

    def shown(self, value: Any) -> str:
        return kind_of(value)

    def _check_kind(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Mismatch(where, f"an object: {self.label}", kind_of(value))

    def _check_complete(self, value: Mapping[str, Any], where: str) -> None:
        for name, f in self.fields.items():
            if name not in value and not f.optional:
                raise Mismatch(f"{where}.{name}", f.type.label, "missing")


@dataclass(frozen=True)
class Union:
    """A value of any one of several types."""

    label: str
    alternatives: Sequence[Type]

    def read(self, value: Any, where: str) -> Any:
        return self._first(lambda t: t.read(value, where), value, where)

    def check(self, value: Any, where: str) -> None:
        self._first(lambda t: t.check(value, where), value, where)

    def shown(self, value: Any) -> str:
        return kind_of(value)

    def _first(self, attempt: Callable[[Type], Any], value: Any, where: str) -> Any:
        reasons = []
        for alternative in self.alternatives:
            try:
                return attempt(alternative)
            except Mismatch as e:
                reasons.append(f"{alternative.label} ({e})")
        raise Mismatch(where, "one of: " + ", ".join(reasons), kind_of(value))


@dataclass(frozen=True)
class Outline:
    """An object of which only that is checked; what its members are, its reader in rpc/ tells."""

    label: str

    def read(self, value: Any, where: str) -> Any:
        self.check(value, where)
        return value

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Mismatch(where, f"an object: {self.label}", kind_of(value))

    def shown(self, value: Any) -> str:
        return kind_of(value)


def outline(kind: Type, *, lenient: bool) -> Type:
    """What of a parameter's type is checked before its reader.

    lenient: nothing, but that a list is one.
    """
    if isinstance(kind, ListOf):
        return ListOf(BUILTIN["any"] if lenient else outline(kind.element, lenient=False))
    if lenient:
        return BUILTIN["any"]
    return Outline(kind.label) if _is_object(kind) else kind


def _is_object(kind: Type) -> bool:
    while isinstance(kind, Reference):
        kind = kind.types[kind.label]
    if isinstance(kind, Union):
        return all(map(_is_object, kind.alternatives))
    return isinstance(kind, Record)


@dataclass(frozen=True)
class Reference:
    """A type by its name in the schema, which may be defined further down."""

    label: str
    types: Mapping[str, Type]

    def read(self, value: Any, where: str) -> Any:
        return self.types[self.label].read(value, where)

    def check(self, value: Any, where: str) -> None:
        self.types[self.label].check(value, where)

    def shown(self, value: Any) -> str:
        return self.types[self.label].shown(value)


# Numbers of engines have 64 bits with a sign, and libvirt takes no longer ones.
_LEAST, _MOST = -(2**63), 2**63 - 1


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _LEAST <= value <= _MOST


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _to_int(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value) else value


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else value


def _to_bool(value: Any) -> Any:
    return _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


_ANY = Scalar("any", "any value", lambda value: True)
_STRING = Scalar("string", "a string", _is_string)

# Engines send numbers as decimal strings, and booleans as "true" and "false", as it comes.
BUILTIN: Mapping[str, Type] = {
    "any": _ANY,
    "string": _STRING,
    # A string that is a secret; a type of its own so that documentation says so.
    "Password": Scalar("Password", "a string", _is_string),
    "boolean": Scalar(
        "boolean", "true or false", lambda v: isinstance(v, bool), _to_bool, public=True
    ),
    "int": Scalar("int", "a whole number of 64 bits", _is_int, _to_int, public=True),
    "long": Scalar("long", "a whole number of 64 bits", _is_int, _to_int, public=True),
    "uint": Scalar(
        "uint",
        "a whole number that is not negative, of 64 bits with the sign",
        lambda v: _is_int(v) and v >= 0,
        _to_int,
        public=True,
    ),
    "float": Scalar(
        "float", "a number", lambda v: _is_int(v) or isinstance(v, float), _to_float, public=True
    ),
    "UUID": Scalar("UUID", "a UUID of 36 characters", is_uuid, _lower, public=True),
    "map": MapOf(_STRING, _ANY),
}
