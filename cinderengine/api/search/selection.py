# SPDX-License-Identifier: GPL-2.0-or-later
"""A search as SQL, where SQL says the same: the database then finds, sorts and cuts.

What differs between databases (case, wildcards) is left to evaluate.py, which any search can be
given to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, ColumnElement, Integer, Select, and_, func, or_

from cinderengine.api.search.evaluate import PAGE, first_of
from cinderengine.api.search.expression import All, Comparison, Expression, Operator, Search, Some

# Those of a collection's fields that are columns of one table.
Columns: TypeAlias = Mapping[str, ColumnElement[Any]]
_MOST = 2**63 - 1


@dataclass(frozen=True)
class Selection:
    """What is added to a query. order: empty for the query's own; limit: None for all."""

    where: ColumnElement[bool] | None = None
    order: tuple[ColumnElement[Any], ...] = ()
    limit: int | None = None
    offset: int = 0

    def of(self, query: Select[Any]) -> Select[Any]:
        """The query, with it."""
        if self.where is not None:
            query = query.where(self.where)
        if self.order:
            query = query.order_by(None).order_by(*self.order)
        if self.limit is not None:
            query = query.limit(min(self.limit, _MOST)).offset(min(self.offset, _MOST))
        return query


def selection(
    search: Search, columns: Columns, most: int | None, *, exact_case: bool = True
) -> Selection | None:
    """A search and the page of it that is wanted; None where SQL does not say the same."""
    everything = search.where == All(())
    where = None if everything else _condition(search.where, columns, exact_case)
    if not everything and where is None:
        return None
    order: tuple[ColumnElement[Any], ...] = ()
    if search.sort_by:
        column = columns.get(search.sort_by)
        if column is None:
            return None
        key = column if _is_number(column) else func.lower(column)
        order = (key.desc() if search.descending else key.asc(),)
    size = most if most is not None else (PAGE if search.page else None)
    return Selection(where, order, size, first_of(search.page, size or 0))


def _condition(where: Expression, columns: Columns, exact_case: bool) -> ColumnElement[bool] | None:
    if isinstance(where, Comparison):
        return _comparison(where, columns, exact_case)
    parts = [_condition(part, columns, exact_case) for part in where.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    return or_(*known) if isinstance(where, Some) else and_(*known)


def _comparison(
    comparison: Comparison, columns: Columns, exact_case: bool
) -> ColumnElement[bool] | None:
    column = columns.get(comparison.field)
    if column is None:
        return None
    if _is_number(column):
        if not re.fullmatch(r"-?[0-9]{1,18}", comparison.value, re.ASCII):
            return None
        return _NUMBERS[comparison.operator](column, int(comparison.value))
    if comparison.operator is not Operator.EQUAL or "*" in comparison.value or not exact_case:
        return None
    if not comparison.value.isprintable():
        return None
    return column == comparison.value


def _is_number(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, Integer | BigInteger)


_NUMBERS: Mapping[Operator, Callable[[ColumnElement[Any], int], ColumnElement[bool]]] = {
    Operator.EQUAL: lambda column, value: column == value,
    Operator.UNEQUAL: lambda column, value: column != value,
    Operator.LESS: lambda column, value: column < value,
    Operator.MORE: lambda column, value: column > value,
    Operator.AT_MOST: lambda column, value: column <= value,
    Operator.AT_LEAST: lambda column, value: column >= value,
}
