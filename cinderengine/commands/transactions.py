# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command does in the database: one transaction, as the user whose the database is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from cinderengine import opening
from cinderengine.commands import owner
from cinderengine.commands.outcome import CommandFailed
from cinderengine.config import Config
from cinderengine.store import schema

P = ParamSpec("P")
T = TypeVar("T")


def transaction(
    config: Config,
    change: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **named: P.kwargs,
) -> T:
    """What change(conn, …) does in one transaction, as the user whose the database is.

    Raises CommandFailed for a database that has another version than this program.
    """
    owner.become(config)
    with opening.store(config) as opened:
        has = opening.read(opened, schema.version)
        if has != schema.newest():
            raise CommandFailed(
                f"the database has version {has}, and this program works with {schema.newest()}; "
                "bring it there with cinder-engine db upgrade"
            )
        return opening.write(opened, change, *args, **named)
