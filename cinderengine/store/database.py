# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the database and runs transactions, each in a thread of its own kind.

SQLite has one writer: writes wait for one another here, not at its lock. A write that another
process is in the way of is tried again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from cinderengine.errors import EngineError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4
# How long a transaction is tried again that another one was in the way of.
PATIENCE_S = 10.0
BUSY_MS = 5000
# PostgreSQL's serialization_failure and deadlock_detected.
_AGAIN = ("40001", "40P01")


class InUse(EngineError):
    """Another engine has the database file open."""

    status = 500


class Store:
    """A database that is open. url: SQLAlchemy's, such as sqlite:////var/lib/x/y.db."""

    def __init__(self, url: str) -> None:
        self.url = sqlalchemy.make_url(url)
        self.engine = _sqlite(url) if self._is_sqlite else _server(url)
        writers = 1 if self._is_sqlite else READERS
        self._writing = ThreadPoolExecutor(writers, "store-write")
        self._reading = ThreadPoolExecutor(READERS, "store-read")
        self._lock: int | None = None

    @property
    def _is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def claim(self) -> None:
        """Make sure that no other engine has the file open; a server may have several.

        Raises InUse.
        """
        if not self._is_sqlite or not self.url.database:
            return
        path = Path(f"{self.url.database}.lock")
        self._lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise InUse(
                f"database {self.url.database} is open in another engine; stop that one, "
                "or give option database.url a PostgreSQL server, which several may share"
            ) from None

    async def read(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        """What query(conn, …) returns, which changes nothing.

        Raises Unavailable, and what it raises.
        """
        return await self._in(self._reading, lambda conn: query(conn, *args, **named), False)

    async def write(
        self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> T:
        """What change(conn, …) returns, once it is committed: all of it or, if it raises, nothing.

        It may run more than once. Raises Unavailable, and what it raises.
        """
        return await self._in(self._writing, lambda conn: change(conn, *args, **named), True)

    def close(self) -> None:
        """Wait for what goes on, and close."""
        self._writing.shutdown()
        self._reading.shutdown()
        self.engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _in(self, pool: ThreadPoolExecutor, act: Callable[..., T], writes: bool) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, self._run, act, writes)

    def _run(self, act: Callable[[Connection], T], writes: bool) -> T:
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.engine.connect() as conn:
                    conn.info["writes"] = writes
                    with conn.begin():
                        return act(conn)
            except DBAPIError as e:
                if not _is_in_the_way(e) or time.monotonic() > until_s:
                    if isinstance(e, OperationalError):
                        raise Unavailable(self._trouble(e)) from e
                    raise
                time.sleep(random.uniform(0.01, 0.1))

    def _trouble(self, e: DBAPIError) -> str:
        name = self.url.render_as_string(hide_password=True)
        return f"database {name} does not do its part ({e.orig}); see that it has room and runs"


def _is_in_the_way(e: DBAPIError) -> bool:
    if isinstance(e.orig, sqlite3.OperationalError):
        return e.orig.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(e.orig, "sqlstate", None) in _AGAIN


def _sqlite(url: str) -> Engine:
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_MS / 1000})

    @event.listens_for(engine, "connect")
    def on_connect(dbapi: Any, _: Any) -> None:
        # Transactions begin where we say (below), not where the sqlite3 module thinks.
        dbapi.isolation_level = None
        dbapi.execute("PRAGMA journal_mode = WAL")
        dbapi.execute("PRAGMA synchronous = FULL")
        dbapi.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def on_begin(conn: Connection) -> None:
        # A transaction that becomes one that writes fails at once if another one writes.
        conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.info.get("writes") else "BEGIN")

    return engine


def _server(url: str) -> Engine:
    return sqlalchemy.create_engine(
        url, isolation_level="REPEATABLE READ", pool_size=2 * READERS, pool_pre_ping=True
    )
