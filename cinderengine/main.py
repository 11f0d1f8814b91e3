# SPDX-License-Identifier: GPL-2.0-or-later
"""The command cinder-engine: makes an engine, runs it, and looks after it.

Each command's own module is imported when it runs, so that none waits for what it does not need.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cinderengine.commands.outcome import CommandFailed, Exit
from cinderengine.config import DEFAULT_PATH, Config, ConfigError, load

EPILOG = """\
exit codes:
  0  done
  1  not done, or a check of doctor failed; the message says why and what to do
  2  the command line or the configuration cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    args = build_parser().parse_args(arguments)
    try:
        config = _configuration(args)
        module, name = args.does.split(":")
        getattr(importlib.import_module(f"cinderengine.commands.{module}"), name)(config, args)
    except (ConfigError, CommandFailed) as e:
        print(f"cinder-engine: {e}", file=sys.stderr)
        return e.code if isinstance(e, CommandFailed) else Exit.USAGE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return Exit.OK


def _configuration(args: argparse.Namespace) -> Config:
    """The file's, or the defaults where there is none and none was named."""
    if args.config is None and not DEFAULT_PATH.exists():
        return Config()
    return load(args.config or DEFAULT_PATH)


def build_parser() -> argparse.ArgumentParser:
    """The command line. `does` of what it reads is `module:function` below commands."""
    parser = argparse.ArgumentParser(
        prog="cinder-engine",
        description="Engine for virtual machines on Ceph: runs hosts, disks and their API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=Path, metavar="PATH", help=f"its configuration ({DEFAULT_PATH})"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_config(commands)
    return parser


Commands = argparse._SubParsersAction


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, does: str, about: str
) -> argparse.ArgumentParser:
    """One command. does: `module:function` below commands. about: one sentence."""
    parser = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(does=does)
    return parser


def _add_config(commands: Commands[argparse.ArgumentParser]) -> None:
    about = "Print the configuration in force as a documented file."
    config = _command(commands, "config", "configuration:show", about)
    config.add_argument("--defaults", action="store_true", help="that of an engine without a file")


if __name__ == "__main__":
    sys.exit(main())
