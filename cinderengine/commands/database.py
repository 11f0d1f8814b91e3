# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine db: brings the database to the version that this program works with."""

from __future__ import annotations

import argparse

from cinderengine import opening
from cinderengine.commands import owner
from cinderengine.config import Config
from cinderengine.store import schema


def upgrade(config: Config, args: argparse.Namespace) -> None:
    """Bring it there, if no engine has it open."""
    owner.become(config)
    with opening.store(config) as store:
        before = opening.read(store, schema.version)
        if before == schema.newest():
            print(f"the database has version {before} already")
            return
        store.claim()
        opening.write(store, schema.upgrade)
        print(f"the database had version {before or 'none'} and has {schema.newest()} now")
