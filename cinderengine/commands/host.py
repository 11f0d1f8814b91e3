# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine host: adds hosts, and tells how they are.

An engine that is served need not be told: it keeps a host as soon as that has joined.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import Connection

from cinderengine import opening
from cinderengine.access.sealing import Sealer
from cinderengine.commands.transactions import transaction
from cinderengine.config import Config
from cinderengine.engine import Engine
from cinderengine.errors import NotFound
from cinderengine.flows.caller import Caller
from cinderengine.flows.hosts import Added, NewHost
from cinderengine.model.centers import Cluster
from cinderengine.model.hosts import Host
from cinderengine.model.users import User
from cinderengine.store.entities import clusters, hosts
from cinderengine.store.rows import Rows

T = TypeVar("T", Cluster, Host)


def add(config: Config, args: argparse.Namespace) -> None:
    """Add a host, and say what is to be run on it."""
    cluster = transaction(config, _named, clusters, "cluster", args.cluster)
    new = NewHost(args.name, cluster.id, address=args.address or "", port=args.port)
    _tell(_done(config, lambda engine, caller: engine.hosts.add(new, caller)))


def token(config: Config, args: argparse.Namespace) -> None:
    """Let a host join anew, and say what is to be run on it."""
    host = transaction(config, _named, hosts, "host", args.name)
    _tell(_done(config, lambda engine, caller: engine.hosts.renew_token(host.id, caller)))


def show(config: Config, args: argparse.Namespace) -> None:
    """List all hosts, each with why it is not up."""
    for host in sorted(transaction(config, hosts.all), key=lambda host: host.name):
        where = f"{host.address}:{host.port}" if host.address else "not known yet"
        print(f"{host.name:20}  {host.status:25}  {where:25}  {host.reason}".rstrip())


def _tell(added: Added) -> None:
    print(f"Run this on host {added.host.name}, as root, within a day:\n  {added.line}")


def _named(conn: Connection, rows: Rows[T], what: str, name: str) -> T:
    found = rows.find(conn, name=name)
    if found is None:
        known = ", ".join(sorted(other.name for other in rows.all(conn))) or "none"
        raise NotFound(f"there is no {what} {name}; known are: {known}")
    return found


def _done(config: Config, act: Callable[[Engine, Caller], Awaitable[Added]]) -> Added:
    """What a flow answers here, of an engine that is not served."""

    async def doing() -> Added:
        with opening.store(config) as store:
            sealer = Sealer.opened(opening.sealing_key(config))
            engine = Engine(config, store, sealer, opening.authorities(config))
            try:
                return await act(engine, Caller(User("", getpass.getuser(), "localhost")))
            finally:
                await engine.close()

    return asyncio.run(doing())
