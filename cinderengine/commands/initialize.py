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
from cinderengine.commands.outcome import CommandFailed
from cinderengine.config import Config
from cinderengine.flows.centers import add_defaults
from cinderengine.store import entities, schema
from cinderengine.store.database import Store

ADMIN = "admin@internal"


def initialize(config: Config, args: argparse.Namespace) -> None:
    """Make directory, keys, authorities, database and the first user, whose password is asked for.

    Run twice, it makes what is missing, and changes nothing else.
    """
    owner.prepare(config)
    names = opening.names(config)
    if not args.anew:
        _refuse_what_got_lost(config)
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


def _refuse_what_got_lost(config: Config) -> None:
    """Make nothing in place of what the database rests on. Raises CommandFailed."""
    key, pki = opening.sealing_key(config), opening.layout(config)
    authorities = (pki.clients, pki.hosts)
    lost = [path for pair in authorities for path in (pair.certificate, pair.key)]
    if key.exists() and any(path.exists() for path in lost):
        return
    if not config.database.url and not (config.state / "engine.db").exists():
        return
    with opening.store(config) as store:
        rests_on_key, has_hosts = opening.read(store, _rests)
    what = []
    if rests_on_key and not key.exists():
        what.append(f"{key}, which passwords and keys in the database are sealed with")
    if has_hosts and not any(path.exists() for path in lost):
        what.append(f"{pki.directory}, whose authorities hosts know the engine by")
    if what:
        raise CommandFailed(
            f"{' and '.join(what)}, got lost; restore it from a backup or, if there is none, make "
            "it anew with cinder-engine init --anew: passwords and keys have to be given anew "
            "then, and hosts have to join anew"
        )


def _rests(conn: Connection) -> tuple[bool, bool]:
    """Whether secrets are in the database, and whether hosts are."""
    if schema.version(conn) is None:
        return False, False
    sealed = [provider.sealed_password for provider in entities.providers.all(conn)]
    has_secrets = any(sealed) or entities.authentication_keys.count(conn) > 0
    return has_secrets, entities.hosts.count(conn) > 0


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
