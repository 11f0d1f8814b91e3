# SPDX-License-Identifier: GPL-2.0-or-later
"""How the vdsm-cinder command ends: its exit codes, and the exceptions that lead to them.

Each exception is one line on stderr and one of the codes.
"""

from __future__ import annotations

from typing import ClassVar

OK, REFUSED, USAGE, UNREACHABLE, EXPIRES_SOON, EXPIRED = 0, 1, 2, 3, 4, 5
UNSURE, UNWELL, INTERRUPTED = 6, 7, 130


class CommandFailed(Exception):
    """The command cannot do what it was asked; the message is one sentence for the operator."""

    exit_code: ClassVar[int] = REFUSED


class InputRefused(CommandFailed):
    """A file or stdin holds something that cannot be used."""


class UsageError(CommandFailed):
    """The words on the command line do not fit together."""

    exit_code = USAGE
