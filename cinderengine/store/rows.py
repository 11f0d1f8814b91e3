# SPDX-License-Identifier: GPL-2.0-or-later
"""Entities as rows: one object for each table, with what is done to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update

T = TypeVar("T")


class Rows(Generic[T]):
    """A table whose columns are the fields of a frozen dataclass, and whose key is id.

    Each method takes the connection of a transaction (database.Store). Conditions are fields with
    the value that they must have.
    """

    def __init__(self, table: Table, kind: type[T]) -> None:
        self.table = table
        self.kind = kind
        assert dataclasses.is_dataclass(kind)
        self._names = [field.name for field in dataclasses.fields(kind)]

    def get(self, conn: Connection, row_id: str) -> T | None:
        """The entity of an id; None if there is none."""
        return self.find(conn, id=row_id)

    def find(self, conn: Connection, /, **conditions: Any) -> T | None:
        """The only entity for which the conditions hold, or the first of several by id."""
        query = self._where(select(self.table), conditions).order_by(self.table.c.id).limit(1)
        row = conn.execute(query).first()
        return None if row is None else self.of(row)

    def all(self, conn: Connection, /, **conditions: Any) -> Sequence[T]:
        """Those for which the conditions hold, by id."""
        query = self._where(select(self.table), conditions).order_by(self.table.c.id)
        return [self.of(row) for row in conn.execute(query)]

    def count(self, conn: Connection, /, **conditions: Any) -> int:
        """How many there are of those."""
        query = self._where(select(func.count()).select_from(self.table), conditions)
        return int(conn.execute(query).scalar_one())

    def insert(self, conn: Connection, entity: T) -> T:
        """Add it; as it is then, with the id that the database gave it if it had none.

        Raises sqlalchemy.exc.IntegrityError when something unique is there already.
        """
        values = {name: getattr(entity, name) for name in self._names}
        if values.get("id") is not None:
            conn.execute(insert(self.table).values(values))
            return entity
        del values["id"]
        key = conn.execute(insert(self.table).values(values)).inserted_primary_key
        assert key is not None
        return dataclasses.replace(entity, id=key[0])  # type: ignore[type-var]

    def update(self, conn: Connection, row_id: str, /, **changes: Any) -> bool:
        """Give it other values, or none; False if it is not there."""
        if not changes:
            return self.get(conn, row_id) is not None
        query = update(self.table).where(self.table.c.id == row_id).values(changes)
        return conn.execute(query).rowcount == 1

    def update_where(self, conn: Connection, conditions: dict[str, Any], /, **changes: Any) -> int:
        """Give all of which the conditions hold other values; how many they are."""
        if not changes:
            return self.count(conn, **conditions)
        return conn.execute(self._where(update(self.table), conditions).values(changes)).rowcount

    def delete(self, conn: Connection, row_id: str) -> bool:
        """Remove it; False if it is not there."""
        query = delete(self.table).where(self.table.c.id == row_id)
        return conn.execute(query).rowcount == 1

    def of(self, row: Row[Any]) -> T:
        """The entity of a row that some other query found."""
        return self.kind(**{name: getattr(row, name) for name in self._names})

    def _where(self, query: Any, conditions: dict[str, Any]) -> Any:
        for name, value in conditions.items():
            query = query.where(self.table.c[name] == value)
        return query
