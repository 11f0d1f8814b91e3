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

from vdsmcinder.rpc.schema import Schema


@dataclass(frozen=True)
class Words:
    """What can be completed, in the order in which it is offered."""

    commands: Mapping[str, str]  # with their help
    options: Mapping[str, tuple[str, ...]]  # of each command; of all of them under ''
    with_value: tuple[str, ...]  # options that take a value as their next word
    verbs: Mapping[str, tuple[str, ...]]  # with the names of their parameters


def words(parser: argparse.ArgumentParser, schema: Schema) -> Words:
    """Collect them from the parser and the schema's served verbs."""
    # argparse offers no other way to ask a parser what it knows.
    sub = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    commands = {c.dest: c.help or "" for c in sub._choices_actions}
    parsers = {"": parser, **{name: sub.choices[name] for name in commands}}
    options = {name: tuple(_options(p)) for name, p in parsers.items()}
    with_value = {
        o for p in parsers.values() for a in p._actions if a.nargs != 0 for o in a.option_strings
    }
    verbs = {v.name: tuple(p.name for p in v.params) for v in schema.served}
    return Words(commands, options, tuple(sorted(with_value)), verbs)


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
        "options": _cases(known.options),
        "verbs": " ".join(known.verbs),
        "params": _cases(params),
    }
    return re.sub(r"@(\w+)@", lambda match: parts[match[1]], template)


def _cases(lists: Mapping[str, tuple[str, ...]]) -> str:
    """Branches of a shell's case statement, each printing the words of one key."""
    lines = [f"{name or '_'}) echo {' '.join(entries)} ;;" for name, entries in lists.items()]
    return "\n".join(" " * 8 + line for line in lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
