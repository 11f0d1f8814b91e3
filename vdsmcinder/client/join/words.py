# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of vdsm-cinder join, its options and its help.

What it does is in client/join/run.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vdsmcinder import config
from vdsmcinder.client import commands

ABOUT = "have this host join an engine, with the line that the engine gave for it"


def add(commands_of: Any, formatter: Callable[[str], Any]) -> None:
    """Add the command to those that there are (argparse's name for them: subparsers)."""
    join = commands_of.add_parser(
        "join",
        help=ABOUT,
        usage="vdsm-cinder join [OPTION...] URL TOKEN",
        description=f"{ABOUT[0].upper()}{ABOUT[1:]}. It makes keys, has the engine sign their "
        "certificates, puts them where the daemon, libvirt and QEMU look for them, and starts the "
        "services with them. Running it again does no harm.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    join.set_defaults(run=commands.join)
    join.add_argument("url", metavar="URL", help="the engine's, such as https://engine.example.com")
    join.add_argument(
        "token",
        metavar="TOKEN",
        help="what the engine gave for this host; '-' takes it from stdin, where nobody else on "
        "this host can see it",
    )
    join.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help="a name or address of this host, again for each (all that it knows of itself)",
    )
    join.add_argument(
        "--force",
        action="store_true",
        help="leave the authority whose certificates this host has, which shuts out its clients",
    )
    join.add_argument(
        "--engine-ca",
        type=Path,
        metavar="FILE",
        help="the CA of the engine's HTTPS certificate, PEM, if that is not the engine's own",
    )
    join.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=config.DEFAULT_PATH,
        help=f"the daemon's configuration, which is changed ({config.DEFAULT_PATH})",
    )
    join.add_argument(
        "--root", type=Path, metavar="DIR", default=Path("/"), help="where libvirt's etc is (/)"
    )
    join.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for scripts"
    )
