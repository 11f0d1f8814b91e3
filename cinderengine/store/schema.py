# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema's versions: brings a database to the newest one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from cinderengine.errors import Conflict

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(conn: Connection) -> None:
    """Bring the database to the newest version; nothing changes if it has that.

    Raises Conflict for a version that this program does not know.
    """
    config = _config()
    config.attributes["connection"] = conn
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise Conflict(
            f"the database has version {version(conn)}, which this program does not know; install "
            "the release that it is of, or a newer one"
        ) from None


def version(conn: Connection) -> str | None:
    """The version that the database has; None if it is empty."""
    return MigrationContext.configure(conn).get_current_revision()


def newest() -> str | None:
    """The version that this program works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
