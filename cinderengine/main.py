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
from cinderengine.errors import EngineError

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
    except (ConfigError, CommandFailed, EngineError) as e:
        print(f"cinder-engine: {e}", file=sys.stderr)
        return _exit_of(e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return Exit.OK


def _exit_of(e: Exception) -> Exit:
    if isinstance(e, ConfigError):
        return Exit.USAGE
    return e.code if isinstance(e, CommandFailed) else Exit.FAILED


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
    about = "Make keys, authorities, database and the user admin@internal; may be run again."
    init = _command(commands, "init", "initialize:initialize", about)
    init.add_argument(
        "--anew",
        action="store_true",
        help="make keys and authorities that got lost anew, though secrets and hosts rest on them",
    )
    _command(commands, "serve", "service:serve", "Run the engine until it is told to end.")
    _add_host(commands)
    _add_user(commands)
    _add_db(commands)
    about = "Check all that the engine needs here, and say what to do where something is wrong."
    _command(commands, "doctor", "doctor:examine", about)
    about = "Print the configuration in force as a documented file."
    config = _command(commands, "config", "configuration:show", about)
    config.add_argument("--defaults", action="store_true", help="that of an engine without a file")
    return parser


Commands = argparse._SubParsersAction


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, does: str, about: str
) -> argparse.ArgumentParser:
    """One command. does: `module:function` below commands. about: one sentence."""
    parser = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(does=does)
    return parser


def _group(
    commands: Commands[argparse.ArgumentParser], name: str, about: str
) -> Commands[argparse.ArgumentParser]:
    """A word that has commands of its own."""
    parser = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
    return parser.add_subparsers(metavar="COMMAND", required=True)


def _add_user(commands: Commands[argparse.ArgumentParser]) -> None:
    group = _group(commands, "user", "Who may log in.")
    add = _command(group, "add", "user:add", "Add a user, whose password is asked for.")
    add.add_argument("--administrator", action="store_true", help="one who may do everything")
    _command(group, "list", "user:show", "List all users.")
    changes = {
        "password": "Give a user another password, which is asked for; all its logins end.",
        "disable": "Let a user log in no more; all its logins end.",
        "enable": "Let a user log in again.",
        "remove": "Remove a user.",
    }
    named = [add] + [_command(group, name, f"user:{name}", does) for name, does in changes.items()]
    for command in named:
        command.add_argument("name", metavar="NAME", help="NAME or NAME@internal")


def _add_host(commands: Commands[argparse.ArgumentParser]) -> None:
    group = _group(commands, "host", "The hosts that the engine runs.")
    about = "Add a host, and print what is to be run on it so that it joins."
    add = _command(group, "add", "host:add", about)
    add.add_argument("--address", help="where it is reached; without it, where it joins from")
    add.add_argument("--port", type=int, default=54321, help="its daemon's (54321)")
    add.add_argument("--cluster", default="Default", help="the cluster it is for (Default)")
    _command(group, "list", "host:show", "List all hosts, each with why it is not up.")
    about = "Let a host join anew: it was installed anew, or the day is over that it had for it."
    token = _command(group, "token", "host:token", about)
    for command in (add, token):
        command.add_argument("name", metavar="NAME", help="its name in the engine")


def _add_db(commands: Commands[argparse.ArgumentParser]) -> None:
    group = _group(commands, "db", "The engine's database.")
    about = "Bring the database to the version that this program works with."
    _command(group, "upgrade", "database:upgrade", about)


if __name__ == "__main__":
    sys.exit(main())
