# SPDX-License-Identifier: GPL-2.0-or-later
"""Which objects a search is about, in which order: a pure function over what they have."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from cinderengine.api.search.expression import (
    All,
    Comparison,
    Expression,
    Operator,
    Search,
    Some,
)
from cinderengine.errors import Invalid

T = TypeVar("T")
# What a field of an object may have; None and what is in no tuple is compared with nothing.
Value: TypeAlias = str | int | bool | tuple[str, ...] | None
# A collection's fields that can be searched, by the names that searches call them, in lower case.
Fields: TypeAlias = Mapping[str, Callable[[T], Value]]

PAGE = 100


def apply(
    search: Search, rows: Sequence[T], fields: Fields[T], *, exact_case: bool = True
) -> Sequence[T]:
    """The rows that a search is about, sorted as it says; pages are cut by page().

    Raises Invalid for a field that these objects cannot be searched by, which names those that they
    can.
    """
    known = sorted(fields)
    for name in _names(search):
        if name and name not in fields:
            raise Invalid(
                f"There is no search by {name[:60]!r} here; there is one by {', '.join(known)}."
            )
    found = [row for row in rows if _holds(search.where, row, fields, exact_case)]
    if search.sort_by:
        key = fields[search.sort_by]
        found.sort(key=lambda row: _order(key(row)), reverse=search.descending)
    return found


def page(rows: Sequence[T], number: int | None, most: int | None) -> Sequence[T]:
    """A page of the rows: of `most` each, or of 100 where pages are asked for and no size is."""
    size = most if most is not None else (PAGE if number else len(rows))
    first = first_of(number, size)
    return rows[first : first + size]


def first_of(number: int | None, size: int) -> int:
    """How many objects are before a page; the first is 1, and None stands for it."""
    return ((number or 1) - 1) * size


def _names(search: Search) -> set[str]:
    names = {search.sort_by}
    pending: list[Expression] = [search.where]
    while pending:
        part = pending.pop()
        if isinstance(part, Comparison):
            names.add(part.field)
        else:
            pending.extend(part.parts)
    return names


def _holds(where: Expression, row: T, fields: Fields[T], exact_case: bool) -> bool:
    if isinstance(where, All):
        return all(_holds(part, row, fields, exact_case) for part in where.parts)
    if isinstance(where, Some):
        return any(_holds(part, row, fields, exact_case) for part in where.parts)
    if where.field:
        return _compares(fields[where.field](row), where, exact_case)
    texts = (get(row) for get in fields.values())
    return any(_compares(text, where, False) for text in texts if isinstance(text, str | tuple))


def _compares(value: Value, comparison: Comparison, exact_case: bool) -> bool:
    how, wanted = comparison.operator, comparison.value
    if how in {Operator.EQUAL, Operator.UNEQUAL}:
        return _is(value, wanted, exact_case) == (how is Operator.EQUAL)
    if value is None or isinstance(value, bool | tuple):
        return False
    if isinstance(value, int):
        if not re.fullmatch(r"-?[0-9]{1,30}", wanted, re.ASCII):
            raise Invalid(
                f"The search compares {comparison.field} with {wanted[:60]!r}: give a whole number."
            )
        return _ORDERED[how](value, int(wanted))
    return _ORDERED[how](value.lower(), wanted.lower())


def _is(value: Value, wanted: str, exact_case: bool) -> bool:
    if isinstance(value, bool):
        return wanted.lower() in ({"true", "yes", "1"} if value else {"false", "no", "0"})
    if value is None:
        return wanted == ""
    if isinstance(value, tuple):
        return any(_is(one, wanted, exact_case) for one in value)
    text = str(value)
    return _like(text, wanted) if exact_case else _like(text.lower(), wanted.lower())


def _like(text: str, wanted: str) -> bool:
    """Whether a text is as wanted, where * is any text; the time it takes grows with both alone."""
    first, *others = wanted.split("*")
    if not others:
        return text == wanted
    *middle, last = others
    end = len(text) - len(last)
    if not (text.startswith(first) and text.endswith(last) and len(first) <= end):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _order(value: Value) -> tuple[int, int, str]:
    if value is None:
        return (0, 0, "")
    if isinstance(value, int):
        return (1, int(value), "")
    return (2, 0, ("\n".join(value) if isinstance(value, tuple) else value).lower())


_ORDERED: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.LESS: operator.lt,
    Operator.MORE: operator.gt,
    Operator.AT_MOST: operator.le,
    Operator.AT_LEAST: operator.ge,
}
