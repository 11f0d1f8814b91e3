# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds every part of the engine, says READY, waits until it is told to end, and ends all."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from sqlalchemy import Connection

from cinderengine import logs, opening
from cinderengine.access.sealing import Sealer
from cinderengine.api.http import app as api
from cinderengine.api.parts import Parts
from cinderengine.authorities import keeper
from cinderengine.authorities.keeper import Authorities
from cinderengine.config import Config, ConfigError
from cinderengine.engine import Engine
from cinderengine.errors import EngineError
from cinderengine.joining_pages import JoiningPages
from cinderengine.store import census, schema
from cinderengine.store.database import Store
from cinderengine.system.listener import Listener
from cinderengine.system.pages import Pages
from cinderengine.system.supervision import Supervision, end_at_the_latest
from vdsmcinder import __version__

log = logging.getLogger(__name__)

# How often certificates that end soon are renewed, and logins that ended are forgotten.
CARE_S = 3600.0
# How long an end may take; TimeoutStopSec= of the unit is longer.
END_S = 9.0


async def serve(config: Config, read_again: Callable[[], Config]) -> None:
    """Serve until SIGTERM or SIGINT. read_again: the configuration, after SIGHUP.

    Raises EngineError and ConfigError for what keeps the engine from being served.
    """
    logs.setup(config.log.level, config.log.target)
    # The watchdog sends SIGABRT: every thread says where it is.
    faulthandler.enable()
    told = Signals()
    async with contextlib.AsyncExitStack() as parts:
        store = await parts.enter_async_context(_store(config))
        sealer = Sealer.opened(opening.sealing_key(config))
        authorities = await asyncio.to_thread(_authorities, config)
        context = await asyncio.to_thread(keeper.web_context, opening.web_pair(config))
        engine = Engine(config, store, sealer, authorities)
        parts.push_async_callback(engine.close)
        await engine.start()
        application = _application(engine)
        listener = Listener(application, context)
        parts.push_async_callback(listener.close)
        await listener.open(config.listen.address, config.listen.port)
        care = asyncio.create_task(_care(engine, context), name="care")
        parts.push_async_callback(_ended, care)
        supervision = Supervision(lambda: f"Serving on port {listener.port}")
        supervision.ready()
        log.info("cinder-engine %s is served on port %d", __version__, listener.port)
        async for _ in told.hangups():
            supervision.reloading()
            await asyncio.to_thread(_reload, config, read_again, context)
            supervision.reloaded()
        end_at_the_latest(END_S)
        await supervision.stopping()
        log.info("told to end; hosts and their VMs run on")


class Signals:
    """What the process is told by signals."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._told.put_nowait, number)

    async def hangups(self) -> AsyncIterator[None]:
        """One for each SIGHUP, until it is told to end."""
        while await self._told.get() is signal.SIGHUP:
            yield


@contextlib.asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    """The database, of the newest version, and, if it is a file, nobody else's."""
    with opening.store(config) as store:
        store.claim()
        if store.url.get_backend_name() == "sqlite":
            await store.write(schema.upgrade)
        has = await store.read(schema.version)
        if has != schema.newest():
            raise EngineError(
                f"the database has version {has}, and this program works with {schema.newest()}; "
                "bring it there with cinder-engine db upgrade when all engines have ended"
            )
        yield store


def _authorities(config: Config) -> Authorities:
    opened = opening.authorities(config)
    _renew(config, opened)
    return opened


def _application(engine: Engine) -> web.Application:
    """All that is served on the port."""
    application = web.Application()
    api.add_to(application, _parts(engine))
    JoiningPages(engine.hosts, lambda: engine.authorities.clients_pem).add_to(application)
    Pages(
        {"database": lambda: _database_answers(engine.store)},
        lambda: engine.store.read(census.counts),
        engine.authorities.ends,
        __version__,
    ).add_to(application)
    return application


def _parts(engine: Engine) -> Parts:
    """What the API works with."""
    return Parts(
        store=engine.store,
        access=engine.logins,
        data_centers=engine.data_centers,
        clusters=engine.clusters,
        providers=engine.providers,
        keys=engine.keys,
        domains=engine.domains,
        disks=engine.disks,
        hosts=engine.hosts,
        facts=engine.keeper.facts,
    )


async def _database_answers(store: Store) -> str:
    try:
        await store.read(_ask)
    except EngineError as e:
        return str(e)
    return ""


def _ask(conn: Connection) -> None:
    conn.exec_driver_sql("SELECT 1")


async def _care(engine: Engine, context: ssl.SSLContext) -> None:
    """What is done every so often."""
    while True:
        await asyncio.sleep(CARE_S)
        try:
            if await asyncio.to_thread(_renew, engine.config, engine.authorities):
                pair = opening.web_pair(engine.config)
                await asyncio.to_thread(keeper.reload_web, context, pair)
            await engine.logins.sweep()
        except EngineError as e:
            log.error("certificates and logins are not looked after: %s", e)


def _renew(config: Config, authorities: Authorities) -> bool:
    made = authorities.renew(opening.names(config))
    for path in made:
        log.info("certificate %s is renewed", path)
    return bool(made)


def _reload(config: Config, read_again: Callable[[], Config], context: ssl.SSLContext) -> None:
    """What can be read again while the engine is served."""
    try:
        logs.set_level(read_again().log.level)
        keeper.reload_web(context, opening.web_pair(config))
    except (ConfigError, EngineError) as e:
        log.error("what was read before stays in force: %s", e)
        return
    log.info("log level and certificate were read again")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
