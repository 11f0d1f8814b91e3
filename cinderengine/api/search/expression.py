# SPDX-License-Identifier: GPL-2.0-or-later
"""What a search asks for, as values that can be evaluated or translated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Operator(StrEnum):
    """How a field is compared."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    MORE = ">"
    AT_MOST = "<="
    AT_LEAST = ">="


@dataclass(frozen=True)
class Comparison:
    """A field against a value, in which * stands for any text. field: empty for any text field."""

    field: str
    operator: Operator
    value: str


@dataclass(frozen=True)
class All:
    """Each of these holds; there are none where everything is asked for."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Some:
    """At least one of these holds."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = Comparison | All | Some
EVERYTHING = All(())


@dataclass(frozen=True)
class Search:
    """A whole search. sort_by: a field; empty for none. page: from 1; None for all of them."""

    where: Expression = EVERYTHING
    sort_by: str = ""
    descending: bool = False
    page: int | None = None
