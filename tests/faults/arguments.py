# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands of the suite of faults are told: which rows, how patiently, and where to write.

Common to the commands; each adds what is its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def parser(prog: str, description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser that takes names of rows, --write and --patience."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(names)}"
    )
    made.add_argument(
        "--write", action="store_true", help="write what is found into docs/faults.md"
    )
    made.add_argument(
        "--patience",
        type=float,
        default=1.0,
        metavar="N",
        help="allow N times as long as the table does, on a machine that is busy (default: 1)",
    )
    return made


def parse(made: argparse.ArgumentParser, names: Sequence[str]) -> argparse.Namespace:
    """The arguments of this process; ends it with a message for a row that there is not."""
    arguments = made.parse_args()
    unknown = [name for name in arguments.names if name not in names]
    if unknown:
        made.error(f"there is no fault {unknown[0]}: they are {', '.join(names)}")
    return arguments
