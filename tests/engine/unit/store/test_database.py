# SPDX-License-Identifier: GPL-2.0-or-later
"""Transactions: whole or not at all, one after the other, and tried again if need be."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy.exc import IntegrityError

from cinderengine.errors import Unavailable
from cinderengine.model.centers import DataCenter
from cinderengine.store import database
from cinderengine.store.database import InUse, Store
from cinderengine.store.entities import data_centers

ONE = DataCenter("1", "one")


async def test_what_is_written_is_read(store):
    assert await store.write(data_centers.insert, ONE) == ONE
    assert await store.read(data_centers.get, "1") == ONE


async def test_a_write_that_fails_leaves_nothing(store):
    def change(conn):
        data_centers.insert(conn, ONE)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await store.write(change)
    assert await store.read(data_centers.all) == []


async def test_what_is_unique_is_there_once(store):
    await store.write(data_centers.insert, ONE)
    with pytest.raises(IntegrityError):
        await store.write(data_centers.insert, DataCenter("2", "one"))


async def test_writes_side_by_side_lose_nothing(store):
    await store.write(data_centers.insert, DataCenter("1", "0"))

    def count_up(conn):
        before = data_centers.get(conn, "1")
        data_centers.update(conn, "1", name=str(int(before.name) + 1))

    await asyncio.gather(*(store.write(count_up) for _ in range(50)))
    assert (await store.read(data_centers.get, "1")).name == "50"


async def test_reads_go_on_while_something_is_written(store):
    await store.write(data_centers.insert, ONE)
    other = sqlite3.connect(store.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE data_centers SET name = 'two'")
    assert (await store.read(data_centers.get, "1")).name == "one"
    other.execute("COMMIT")
    assert (await store.read(data_centers.get, "1")).name == "two"


async def test_a_write_waits_for_another_process(store, monkeypatch):
    """Longer than SQLite itself waits."""
    monkeypatch.setattr(database, "BUSY_MS", 1)
    patient = Store(str(store.url))
    other = sqlite3.connect(store.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    written = asyncio.ensure_future(patient.write(data_centers.insert, ONE))
    await asyncio.sleep(0.1)
    assert not written.done()
    other.execute("COMMIT")
    assert await written == ONE
    patient.close()


async def test_one_that_is_locked_for_long_is_told_of(store, monkeypatch):
    monkeypatch.setattr(database, "BUSY_MS", 1)
    monkeypatch.setattr(database, "PATIENCE_S", 0)
    impatient = Store(str(store.url))
    other = sqlite3.connect(store.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match=r"^database sqlite:.*\(database is locked\); see that"):
        await impatient.write(data_centers.insert, ONE)
    impatient.close()


def test_a_file_has_one_engine(store):
    store.claim()
    second = Store(str(store.url))
    with pytest.raises(InUse, match="is open in another engine; stop that one, or give option"):
        second.claim()
    store.close()
    second.claim()
    second.close()
