# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema's versions: brings a database to the newest one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(conn: Connection) -> None:
    """Bring the database to the newest version; nothing changes if it has that."""
    config = _config()
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


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
