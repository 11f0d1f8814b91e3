# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose the engine's files are: commands of root become that user, so that all stays its own.

The owner of the state directory is that user; at first it is given to `cinder-engine`, if the
machine has one.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from cinderengine.commands.outcome import CommandFailed
from cinderengine.config import Config

USER = "cinder-engine"
DIRECTORY_MODE = 0o700


def prepare(config: Config) -> None:
    """Make the state directory, and become its owner. Raises CommandFailed."""
    try:
        if not config.state.is_dir():
            config.state.mkdir(mode=DIRECTORY_MODE, parents=True)
            _give(config.state)
    except OSError as e:
        raise CommandFailed(
            f"directory {config.state} cannot be made: {e.strerror}; run this as root, or set "
            "directories.state to a directory that you may make"
        ) from e
    become(config)


def become(config: Config) -> None:
    """Become the owner of the state directory. Raises CommandFailed."""
    try:
        owner = config.state.stat()
    except FileNotFoundError:
        raise CommandFailed(
            f"directory {config.state} does not exist; make an engine with cinder-engine init"
        ) from None
    except PermissionError:
        raise _not_ours(config.state) from None
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.initgroups(_name(owner.st_uid), owner.st_gid)
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    if not os.access(config.state, os.R_OK | os.W_OK | os.X_OK):
        raise _not_ours(config.state)
    os.umask(0o077)


def _give(directory: Path) -> None:
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return
    os.chown(directory, user.pw_uid, user.pw_gid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise CommandFailed(
            f"the owner of the engine's directory, user {uid}, does not exist; give it to one "
            "that does, with chown --recursive"
        ) from None


def _not_ours(directory: Path) -> CommandFailed:
    return CommandFailed(
        f"directory {directory} is another user's; run this as root, or as that user"
    )
