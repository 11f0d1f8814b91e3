# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine for each test of its API, and a client."""

from __future__ import annotations

import aiohttp
import pytest_asyncio

from tests.engine.unit.api.client import Client
from tests.engine.unit.api.engine import running


@pytest_asyncio.fixture
async def engine(store):
    async with running(store) as engine:
        yield engine


@pytest_asyncio.fixture
async def client(engine):
    # Of a server whose name is an address, too.
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Client(session, engine.url)
