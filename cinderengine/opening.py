# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine has, by its configuration: its database, its authorities, its own names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from cinderengine.authorities.keeper import Authorities, Layout, Pair, Validity
from cinderengine.config import Config
from cinderengine.errors import EngineError
from cinderengine.store.database import Store

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def store(config: Config) -> Iterator[Store]:
    """The database, whatever version it has. Raises EngineError where there is none."""
    if not config.database.url and not (config.state / "engine.db").exists():
        raise EngineError(
            f"there is no database in {config.state}; make an engine with cinder-engine init"
        )
    opened = Store(config.database_url)
    try:
        yield opened
    finally:
        opened.close()


def read(
    opened: Store,
    query: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **named: P.kwargs,
) -> T:
    """What query(conn, …) returns, which changes nothing."""
    return asyncio.run(opened.read(query, *args, **named))


def write(
    opened: Store,
    change: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **named: P.kwargs,
) -> T:
    """What change(conn, …) returns, in one transaction."""
    return asyncio.run(opened.write(change, *args, **named))


def sealing_key(config: Config) -> Path:
    """Where the key is that secrets in the database are sealed with."""
    return config.state / "sealing.key"


def layout(config: Config) -> Layout:
    """Where the authorities are."""
    return Layout(config.state / "pki")


def validity(config: Config) -> Validity:
    """How long what they sign is valid."""
    options = config.certificates
    return Validity(options.days, options.authority_days, options.renew_days)


def authorities(config: Config) -> Authorities:
    """The authorities. Raises EngineError."""
    return Authorities(layout(config), validity(config))


def web_pair(config: Config) -> Pair:
    """What the engine's port is served with: the administrator's files, or its own."""
    if config.listen.certificate:
        return Pair(Path(config.listen.certificate), Path(config.listen.key))
    return layout(config).web


def names(config: Config) -> Sequence[str]:
    """The names and addresses by which the engine is reached, the one that hosts are told first."""
    return config.listen.names or _machine_names()


def url(config: Config) -> str:
    """Where hosts and clients find it."""
    name, port = names(config)[0], config.listen.port
    host = f"[{name}]" if ":" in name else name
    return f"https://{host}" if port == 443 else f"https://{host}:{port}"


def _machine_names() -> list[str]:
    """The full name first, then others, and the addresses that it has towards others."""
    found = [socket.getfqdn(), socket.gethostname()]
    here = [name for name in found if name.partition(".")[0] != "localhost"]
    addresses = [
        address
        for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
        if (address := _address_towards(family, elsewhere))
    ]
    return list(dict.fromkeys([*here, *addresses, "localhost", "127.0.0.1", "::1"]))


def _address_towards(family: socket.AddressFamily, elsewhere: str) -> str | None:
    """Our address on the way there; nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            address: str = probe.getsockname()[0]
            return address
    except OSError:
        return None
