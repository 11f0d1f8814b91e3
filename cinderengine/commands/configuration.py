# SPDX-License-Identifier: GPL-2.0-or-later
"""cinder-engine config: the configuration in force, or the one of a new engine, as a file."""

from __future__ import annotations

import argparse

from cinderengine.config import Config, render


def show(config: Config, args: argparse.Namespace) -> None:
    """Print it."""
    print(render(Config() if args.defaults else config), end="")
