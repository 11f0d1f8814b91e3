# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine doctor: all that an engine needs on this machine, checked one by one.

Each check is a line: what it found and, where something is wrong, what to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text

from cinderengine import opening
from cinderengine.access import users
from cinderengine.access.sealing import Sealer
from cinderengine.authorities import certificates
from cinderengine.authorities.keeper import web_context
from cinderengine.commands import owner
from cinderengine.commands.outcome import CommandFailed
from cinderengine.config import DEFAULT_PATH, Config
from cinderengine.errors import EngineError
from cinderengine.store import schema

# Below that the database cannot do its work for long.
LEAST_FREE_BYTES = 1 << 30
ANSWER_TIMEOUT_S = 5.0
# What the engine needs of others, and what for.
MODULES = {
    "aiohttp": "the API",
    "lxml": "the API",
    "alembic": "the database",
    "openstack": "Cinder",
    "rbd": "pools without Cinder",
    "systemd": "the journal",
}


class State(StrEnum):
    """How it is with something."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What a check found; sentence: with what to do, where something is wrong."""

    state: State
    sentence: str


Check = Callable[[Config], Iterator[Finding]]


def examine(config: Config, args: argparse.Namespace) -> None:
    """Check everything. Raises CommandFailed where something is wrong."""
    owner.become(config)
    file = args.config or (
        DEFAULT_PATH if DEFAULT_PATH.exists() else "the defaults, without a file"
    )
    print(f"{State.OK:8} {'configuration':13} {file}; served at {opening.url(config)}")
    wrong = 0
    for name, check in CHECKS.items():
        for finding in _findings(check, config):
            wrong += finding.state is State.WRONG
            print(f"{finding.state:8} {name:13} {finding.sentence}", flush=True)
    if wrong:
        raise CommandFailed(f"{wrong} of these are wrong; the lines say what to do")


def _findings(check: Check, config: Config) -> Sequence[Finding]:
    try:
        return list(check(config))
    except (EngineError, CommandFailed) as e:
        return [Finding(State.WRONG, str(e))]


def _modules(config: Config) -> Iterator[Finding]:
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    for name in missing:
        # Cinder and pools do not need each other, nor the log the journal.
        state = State.WARNING if name in ("openstack", "rbd", "systemd") else State.WRONG
        yield Finding(
            state, f"Python's {name} is missing, for {MODULES[name]}; install python3-{name}"
        )
    if not missing:
        yield Finding(State.OK, f"all that is needed can be imported: {', '.join(MODULES)}")


def _directory(config: Config) -> Iterator[Finding]:
    mode = stat.S_IMODE(config.state.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            State.WRONG,
            f"{config.state} is open to others (mode {mode:04o}), and keys are in it; "
            f"chmod 0700 {config.state}",
        )
    uid = os.geteuid()
    for path in sorted(config.state.rglob("*")):
        found = path.lstat()
        if found.st_uid != uid:
            yield Finding(
                State.WRONG,
                f"{path} is another user's, so that the engine may not be able to use it; "
                f"chown --reference={config.state} {path}",
            )
        elif path.suffix == ".key" and stat.S_IMODE(found.st_mode) & 0o077:
            yield Finding(State.WRONG, f"{path} can be read by others; chmod 0400 {path}")
    free = shutil.disk_usage(config.state).free
    if free < LEAST_FREE_BYTES:
        yield Finding(
            State.WARNING,
            f"the file system of {config.state} has {free >> 20} MiB left; make room on it",
        )
    else:
        yield Finding(State.OK, f"{config.state} has {free >> 30} GiB of room")


def _database(config: Config) -> Iterator[Finding]:
    with opening.store(config) as store:
        has, wanted = opening.read(store, schema.version), schema.newest()
        if has != wanted:
            yield Finding(
                State.WRONG,
                f"the database has version {has}, and this program works with {wanted}; "
                "cinder-engine db upgrade",
            )
            return
        if store.url.get_backend_name() == "sqlite":
            told = opening.read(store, _quick_check)
            if told != "ok":
                yield Finding(State.WRONG, f"the database is damaged ({told}); restore a backup")
                return
        yield Finding(State.OK, f"{store.url.render_as_string()}, version {has}")
        if not [user for user in opening.read(store, users.everybody) if user.administrator]:
            yield Finding(
                State.WRONG, "there is no administrator; cinder-engine init makes admin@internal"
            )


def _quick_check(conn: Connection) -> str:
    return str(conn.execute(text("PRAGMA quick_check(1)")).scalar_one())


def _keys(config: Config) -> Iterator[Finding]:
    Sealer.opened(opening.sealing_key(config))
    yield Finding(State.OK, f"{opening.sealing_key(config)} seals passwords and keys")


def _certificates(config: Config) -> Iterator[Finding]:
    opened = opening.authorities(config)
    pairs = {
        "clients' authority": opened.layout.clients,
        "hosts' authority": opened.layout.hosts,
        "engine towards hosts": opened.layout.engine,
        "HTTPS": opening.web_pair(config),
    }
    for what, pair in pairs.items():
        certificate = certificates.certificate_of(pair.certificate.read_bytes(), str(pair))
        left = certificates.days_left(certificate)
        sentence = f"{what}: {pair.certificate} is valid for {left} days"
        if left < 0:
            remedy = "cinder-engine init makes the engine's own anew, the others are yours to renew"
            yield Finding(State.WRONG, f"{what}: {pair.certificate} has expired; {remedy}")
        elif left < min(30, config.certificates.renew_days):
            yield Finding(State.WARNING, f"{sentence}; restart the engine, which renews its own")
        else:
            yield Finding(State.OK, sentence)
    web_context(opening.web_pair(config))


def _port(config: Config) -> Iterator[Finding]:
    port = config.listen.port
    context = ssl.create_default_context(cafile=opening.layout(config).clients.certificate)
    context.check_hostname = False
    if config.listen.certificate:
        context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(_own_address(config), ANSWER_TIMEOUT_S) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            line = secured.makefile("rb").readline().decode("ascii", "replace").strip()
    except ConnectionRefusedError:
        yield Finding(
            State.WRONG,
            f"nobody listens on port {port}; systemctl start cinder-engine, and look at "
            "journalctl --unit=cinder-engine",
        )
    except OSError as e:
        yield Finding(
            State.WRONG,
            f"who listens on port {port} is not this engine, or it hangs ({e}); find out with "
            f"ss --listening --tcp --processes 'sport = {port}'",
        )
    else:
        state = State.OK if " 200 " in f"{line} " else State.WRONG
        yield Finding(state, f"the engine answers on port {port}: {line}")


def _own_address(config: Config) -> tuple[str, int]:
    everywhere = {"::": "localhost", "": "localhost", "0.0.0.0": "127.0.0.1"}
    return everywhere.get(config.listen.address, config.listen.address), config.listen.port


CHECKS: dict[str, Check] = {
    "packages": _modules,
    "directory": _directory,
    "database": _database,
    "sealing key": _keys,
    "certificates": _certificates,
    "port": _port,
}
