# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion of vdsm-cinder's words in bash and zsh, by argcomplete.

argcomplete knows commands, options and their choices from the parser. The rest is told here: verbs
and their parameters, from the schema, and VMs, which the daemon is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.shell_integration import shellcode

from vdsmcinder.client import vms
from vdsmcinder.client.session import connect
from vdsmcinder.rpc.schema import schema

# How long the operator's shell may stand while the daemon is asked, in seconds.
TIMEOUT_S = 5.0

_files = FilesCompleter()


def script(shell: str) -> str:
    """What 'bash' or 'zsh' has to read; it runs vdsm-cinder to complete its words."""
    code: str = shellcode(["vdsm-cinder"], shell=shell)
    return code


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and end the process, if it is the shell that runs us."""
    for action in _actions(parser):
        if completer := _COMPLETERS.get(action.dest):
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete's way
    argcomplete.autocomplete(parser, always_complete_options=False)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All that can stand on the command line."""
    # argparse offers no other way to ask a parser what it knows.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _verbs(**_: object) -> list[str]:
    return [verb.name for verb in schema.load().served]


def _parameters(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    name, equals, value = prefix.partition("=")
    if not equals:
        verb = schema.load().verbs.get(parsed_args.verb)
        return [f"{param.name}=" for param in verb.params] if verb else []
    if value.startswith("@"):
        return [f"{name}=@{path}" for path in _files(value[1:])]
    return [f"vmID={vm_id}" for vm_id in _known_vms(parsed_args)] if name == "vmID" else []


def _names(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    return list(_known_vms(parsed_args).values())


def _known_vms(args: argparse.Namespace) -> dict[str, str]:
    """Names by id, of the daemon that the words so far say."""
    args.timeout = min(args.timeout, TIMEOUT_S)
    with connect(args) as session:
        return vms.names(session)


# By the names that client/cli.py gives to operands.
_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "verb": _verbs,
    "parameters": _parameters,
    "vm": _names,
}
