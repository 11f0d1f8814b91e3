# SPDX-License-Identifier: GPL-2.0-or-later
"""Keystone's API in one process.

Run by its path, with the packages of Debian's Keystone on PYTHONPATH: keystone_process.py
CONFIGURATION STARTED. It makes its database, its keys and its administrator first.
"""

# ruff: noqa: PLC0415  Keystone is there only where the lab runs it.

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from oslo_config import cfg


class Handler(WSGIRequestHandler):
    """Keystone logs what it is asked."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def main(configuration: str, started: str) -> None:
    """Make all that it needs and serve until a signal ends it; make the file `started`."""
    cfg.CONF.register_opts([cfg.StrOpt("address"), cfg.IntOpt("port")], "lab")
    # Keystone loads its parts once a process: to make its administrator, or to serve.
    child = os.fork()
    if not child:
        _make(configuration)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit("its database could not be made")
    from keystone.server.flask import core

    application = core.initialize_application("public", config_files=[configuration])
    lab = cfg.CONF.lab
    # One request at a time: SQLite has one writer, and refuses others after a while.
    with make_server(lab.address, lab.port, application, handler_class=Handler) as server:
        Path(started).touch()
        server.serve_forever()


def _make(configuration: str) -> None:
    import keystone.server
    from keystone.cmd.bootstrap import Bootstrapper
    from keystone.common import fernet_utils
    from keystone.common.sql import upgrades

    keystone.server.configure(config_files=[configuration])
    upgrades.offline_sync_database_to_version()
    # Keystone reads by one connection while it writes by another, which would wait for it.
    path = cfg.CONF.database.connection.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
    keys = cfg.CONF.fernet_tokens
    fernet = fernet_utils.FernetUtils(keys.key_repository, keys.max_active_keys, "fernet_tokens")
    fernet.create_key_directory(None, None)
    fernet.initialize_key_repository(None, None)
    bootstrap = Bootstrapper()
    bootstrap.admin_username = bootstrap.project_name = bootstrap.admin_role_name = "admin"
    bootstrap.admin_password = "administrator"
    bootstrap.service_name = "keystone"
    bootstrap.region_id = "RegionOne"
    bootstrap.public_url = f"http://{cfg.CONF.lab.address}:{cfg.CONF.lab.port}/v3"
    # Other services look for it there.
    bootstrap.internal_url = bootstrap.public_url
    bootstrap.bootstrap()


if __name__ == "__main__":
    words = sys.argv[1:]
    # Keystone would take them for options of its own.
    del sys.argv[1:]
    main(*words)
