# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts that complete the words of vdsm-cinder in bash and zsh, made from schema and parser.

Used by `vdsm-cinder completion`; ids of VMs are asked of the daemon while the operator types.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsmcinder.rpc.schema.schema import Schema


@dataclass(frozen=True)
class Words:
    """What can be completed, in the order in which it is offered."""

    commands: Mapping[str, str]  # with their help
    actions: Mapping[str, tuple[str, ...]]  # of those commands that have some
    options: Mapping[str, tuple[str, ...]]  # of each command or action; of all of them under ''
    with_value: tuple[str, ...]  # options that take a value as their next word
    verbs: Mapping[str, tuple[str, ...]]  # with the names of their parameters


def words(parser: argparse.ArgumentParser, schema: Schema) -> Words:
    """Collect them from the parser and the schema's served verbs."""
    commands, actions, parsers = {}, {}, {"": parser}
    for name, about, command in _commands(parser):
        commands[name], parsers[name] = about, command
        below = _commands(command)
        parsers.update({f"{name} {action}": found for action, _, found in below})
        if below:
            actions[name] = tuple(action for action, _, _ in below)
    options = {name: tuple(_options(p)) for name, p in parsers.items()}
    with_value = {
        o for p in parsers.values() for a in p._actions if a.nargs != 0 for o in a.option_strings
    }
    verbs = {v.name: tuple(p.name for p in v.params) for v in schema.served}
    return Words(commands, actions, options, tuple(sorted(with_value)), verbs)


def _commands(
    parser: argparse.ArgumentParser,
) -> list[tuple[str, str, argparse.ArgumentParser]]:
    """The commands of a parser: names, what they do, and their own parsers."""
    # argparse offers no other way to ask a parser what it knows.
    return [
        (choice.dest, choice.help or "", action.choices[choice.dest])
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    ]


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [o for action in parser._actions for o in action.option_strings if o.startswith("--")]


def script(shell: str, known: Words) -> str:
    """The script for 'bash' (4.2 and later, without further packages) or 'zsh'.

    It is the template of that name beside this module, its @words@ filled in.
    """
    template = Path(__file__).with_name(f"completion.{shell}").read_text(encoding="utf-8")
    params = {verb: names for verb, names in known.verbs.items() if names}
    parts = {
        "commands": " ".join(known.commands),
        "described": "\n".join(
            " " * 8 + _quoted(f"{name}:{about}") for name, about in known.commands.items()
        ),
        "with_value": "|".join(known.with_value),
        "actions": _cases(known.actions),
        "options": _cases(known.options),
        "verbs": " ".join(known.verbs),
        "params": _cases(params),
    }
    return re.sub(r"@(\w+)@", lambda match: parts[match[1]], template)


def _cases(lists: Mapping[str, tuple[str, ...]]) -> str:
    """Branches of a shell's case statement, each printing the words of one key."""
    lines = [f"{_pattern(name)}) echo {' '.join(entries)} ;;" for name, entries in lists.items()]
    return "\n".join(" " * 8 + line for line in lines)


def _pattern(name: str) -> str:
    return f'"{name}"' if " " in name else name or "_"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
