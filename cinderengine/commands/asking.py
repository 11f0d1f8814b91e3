# SPDX-License-Identifier: GPL-2.0-or-later
"""Passwords from a person, who types them twice, or from a pipe, whose first line is one."""

from __future__ import annotations

import getpass
import sys

from cinderengine.access.users import check_password
from cinderengine.commands.outcome import CommandFailed
from cinderengine.model.secret import Secret


def new_password(whose: str) -> Secret:
    """A password that may be set. Raises CommandFailed and Invalid."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise CommandFailed(
                f"no password for {whose} came from standard input; write it there, one line, or "
                "run this in a terminal"
            )
        return check_password(Secret(line.rstrip("\r\n")))
    password = check_password(Secret(getpass.getpass(f"Password of {whose}: ")))
    if Secret(getpass.getpass("Once more: ")) != password:
        raise CommandFailed("the passwords are not the same; try again")
    return password
