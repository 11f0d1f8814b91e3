# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading structured parameters off the wire: each field is converted once, here, or refused.

Every refusal names the field, what kind of value it has and what was expected. The value itself is
not repeated: what does not fit may be a key or a passphrase that belongs elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar

from vdsmcinder import uuids
from vdsmcinder.errors import InvalidParameter, MissingParameter

T = TypeVar("T")

# What XML 1.0 cannot carry (section 2.2): most control characters, lone surrogates.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Elements that a list in a description may have, such as its devices: more than a VM can, and few
# enough that reading them keeps nobody waiting.
MOST_ELEMENTS = 1000

_TRUE = frozenset({"true", "on", "yes", "1"})
_FALSE = frozenset({"false", "off", "no", "0"})


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A type of value on the wire.

    convert: the wire's value to ours; ValueError when it does not fit.
    expected: what fits, as it stands in an error after 'expected'.
    """

    convert: Callable[[Any], T]
    expected: str


def kind_of(value: Any) -> str:
    """A value by kind and size alone, for errors and logs that must not hold what it says."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"a string of {len(value)} character{'s' if len(value) != 1 else ''}"
    if isinstance(value, Mapping):
        return f"an object with {len(value)} members"
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    names = {bool: "boolean", int: "number", float: "number"}
    return f"a {names.get(type(value), type(value).__name__)}"


def word(value: Any, known: Container[str]) -> str:
    """A value that is one of some known words, quoted; any other by its kind, as kind_of has it."""
    return repr(value) if isinstance(value, str) and value in known else kind_of(value)


def is_xml_text(text: str) -> bool:
    """Whether XML can carry this text."""
    return _NOT_XML.search(text) is None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError
    text = str(value)
    if not is_xml_text(text):
        raise ValueError
    return text


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError
    return word in _TRUE


TEXT = Kind(_text, "text without control characters")
BOOLEAN = Kind(_boolean, "true or false")
UUID = Kind(uuids.parse, "a UUID")


def number(minimum: int, maximum: int | None = None) -> Kind[int]:
    """A whole number, as a number or as decimal digits, within the limits (both inclusive)."""

    def convert(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError
        return value

    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return Kind(convert, f"a whole number {limits}")


def power_of_2(minimum: int, maximum: int) -> Kind[int]:
    """A power of two, written as number() takes it, within the limits (both inclusive)."""

    def convert(value: Any) -> int:
        power = number(minimum, maximum).convert(value)
        if power & (power - 1):
            raise ValueError
        return power

    return Kind(convert, f"a power of 2 from {minimum} to {maximum}")


def choice(*names: str) -> Kind[str]:
    """One of some words."""

    def convert(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return Kind(convert, f"one of {', '.join(names)}")


def matching(pattern: str, expected: str) -> Kind[str]:
    """Text that matches the whole of a regular expression."""

    def convert(value: Any) -> str:
        text = _text(value)
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return Kind(convert, expected)


class Fields:
    """The fields of one object on the wire.

    values: the object as JSON gives it. thing: what it describes, the first words of every error.
    Null and the empty string count as absent: engines send both for what they do not know.
    """

    def __init__(self, values: Any, thing: str, path: str = "") -> None:
        if not isinstance(values, Mapping):
            raise _invalid(thing, path or "the description", values, "an object")
        self.values: Mapping[str, Any] = values
        self.thing = thing
        self._path = path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) not in (None, "")

    def get(self, name: str, kind: Kind[T]) -> T | None:
        """The value of a field, or None when it is absent. Raises InvalidParameter."""
        if name not in self:
            return None
        return self._convert(self._where(name), self.values[name], kind)

    def need(self, name: str, kind: Kind[T]) -> T:
        """The value of a field that must be there. Raises MissingParameter, InvalidParameter."""
        value = self.get(name, kind)
        if value is None:
            raise self.missing(name, kind.expected)
        return value

    def items(self, name: str, kind: Kind[T]) -> list[T]:
        """The values of a list; empty when the field is absent. Raises InvalidParameter."""
        return [
            self._convert(f"{self._where(name)}[{i}]", item, kind)
            for i, item in enumerate(self._list(name))
        ]

    def section(self, name: str) -> Fields:
        """The fields of an object within this one, none when it is absent.

        Raises InvalidParameter for what is no object, or one of more members than anything has.
        """
        where = self._where(name)
        inner = Fields(self.values[name] if name in self else {}, self.thing, where)
        if len(inner.values) > MOST_ELEMENTS:
            raise InvalidParameter(
                f"{self.thing}: {where} has {len(inner.values)} members; expected at most "
                f"{MOST_ELEMENTS}",
                field=where,
            )
        return inner

    def sections(self, name: str) -> list[Fields]:
        """The fields of each object in a list; empty when the field is absent."""
        where = self._where(name)
        return [
            Fields(item, self.thing, f"{where}[{i}]") for i, item in enumerate(self._list(name))
        ]

    def names(self) -> list[str]:
        """The names of the fields that are there."""
        return [name for name in self.values if name in self]

    def missing(self, name: str, expected: str) -> MissingParameter:
        """The error for a field that should be there."""
        where = self._where(name)
        return MissingParameter(
            f"{self.thing}: {where} is missing; expected {expected}", field=where, expected=expected
        )

    def invalid(self, name: str, expected: str) -> InvalidParameter:
        """The error for a field whose value does not fit, though it is of the right kind.

        A number is told, for nothing else stands where there is to be one.
        """
        value = self.values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return _refused(self.thing, self._where(name), str(value), expected)
        return _invalid(self.thing, self._where(name), value, expected)

    def _list(self, name: str) -> Sequence[Any]:
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise self.invalid(name, "a list")
        if len(value) > MOST_ELEMENTS:
            where = self._where(name)
            raise InvalidParameter(
                f"{self.thing}: {where} is a list of {len(value)}; expected at most "
                f"{MOST_ELEMENTS}",
                field=where,
            )
        return value

    def _where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _convert(self, where: str, value: Any, kind: Kind[T]) -> T:
        try:
            return kind.convert(value)
        except ValueError:
            raise _invalid(self.thing, where, value, kind.expected) from None


def _invalid(thing: str, where: str, value: Any, expected: str) -> InvalidParameter:
    return _refused(thing, where, kind_of(value), expected)


def _refused(thing: str, where: str, found: str, expected: str) -> InvalidParameter:
    return InvalidParameter(
        f"{thing}: {where} is {found}; expected {expected}",
        field=where,
        found=found,
        expected=expected,
    )
