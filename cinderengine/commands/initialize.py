# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine init: makes what an engine needs to be served. What is there already stays."""

from __future__ import annotations

import argparse

from sqlalchemy import Connection

from cinderengine import opening
from cinderengine.access import passwords, users
from cinderengine.access.sealing import Sealer
from cinderengine.authorities.keeper import Authorities
from cinderengine.commands import asking, owner
from cinderengine.config import Config
from cinderengine.flows.centers import add_defaults
from cinderengine.store import schema
from cinderengine.store.database import Store

ADMIN = "admin@internal"


def initialize(config: Config, args: argparse.Namespace) -> None:
    """Make directory, keys, authorities, database and the first user, whose password is asked for.

    Run twice, it makes what is missing, and changes nothing else.
    """
    owner.prepare(config)
    names = opening.names(config)
    if Sealer.make(opening.sealing_key(config)):
        print(f"made   {opening.sealing_key(config)}, which secrets are sealed with")
    for path in Authorities.make(opening.layout(config).directory, names, opening.validity(config)):
        print(f"made   {path}")
    _database(config)
    print(
        f"The engine is complete. Start it with systemctl enable --now cinder-engine; then log in "
        f"at\n  {opening.url(config)}/ovirt-engine/ as {ADMIN}\n"
        f"Clients are to trust {opening.layout(config).clients.certificate}."
    )


def _set_up(conn: Connection) -> None:
    """The tables and, in a database that was empty, what every engine begins with."""
    was_empty = schema.version(conn) is None
    schema.upgrade(conn)
    if was_empty:
        add_defaults(conn)


def _database(config: Config) -> None:
    store = Store(config.database_url)
    try:
        if opening.read(store, schema.version) != schema.newest():
            store.claim()
            opening.write(store, _set_up)
            print(f"made   {store.url.render_as_string(hide_password=True)}")
        if opening.read(store, users.find, ADMIN) is None:
            kept = passwords.hashed(asking.new_password(ADMIN))
            opening.write(store, users.add, ADMIN, kept, administrator=True)
            print(f"made   user {ADMIN}")
        else:
            print(f"there  user {ADMIN}; another password: cinder-engine user password admin")
    finally:
        store.close()
