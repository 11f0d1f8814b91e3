# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine serve: runs the engine until it is told to end."""

from __future__ import annotations

import argparse
import asyncio

from cinderengine.commands import owner
from cinderengine.config import DEFAULT_PATH, Config, load
from cinderengine.serve import serve as serve_until_told


def serve(config: Config, args: argparse.Namespace) -> None:
    """Run it, as the user whose the engine's directory is."""
    owner.become(config)
    path = args.config or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)
    asyncio.run(serve_until_told(config, lambda: load(path) if path else config))
