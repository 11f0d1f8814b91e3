# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine's unit tests share: a database of its own for each test."""

from __future__ import annotations

import shutil

import pytest
import pytest_asyncio

from cinderengine.store import schema
from cinderengine.store.database import Store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """The file of a database with the newest schema and no rows."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    store = Store(f"sqlite:///{path}")
    with store.engine.begin() as conn:
        schema.upgrade(conn)
    store.close()
    return path


@pytest_asyncio.fixture
async def store(empty_database, tmp_path):
    path = tmp_path / "engine.db"
    shutil.copyfile(empty_database, path)
    store = Store(f"sqlite:///{path}")
    yield store
    store.close()
