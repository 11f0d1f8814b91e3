# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends: the exit codes, and the exception that has one."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of cinder-engine."""

    OK = 0
    # Something was not done, or a check of doctor failed.
    FAILED = 1
    # The command line or the configuration cannot be used.
    USAGE = 2


class CommandFailed(Exception):
    """The command cannot do its work; the message is one sentence: object, cause, remedy."""

    code = Exit.FAILED


class UsageError(CommandFailed):
    """The command line or the configuration cannot be used."""

    code = Exit.USAGE
