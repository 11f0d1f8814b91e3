# SPDX-License-Identifier: GPL-2.0-or-later
"""Options are set in a YAML file that people wrote: the rest of it stays as it is, comments too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from vdsmcinder.client.exit_codes import InputRefused

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def changed(text: str, changes: Mapping[tuple[str, ...], str], where: str) -> str:
    """The text with each option at its path of names, such as ("listen", "hosts_ca"), as given.

    Raises InputRefused for a text that is not made of mappings there.
    """
    for path, value in changes.items():
        text = _set(text, path, value, where)
    return text


def _set(text: str, path: tuple[str, ...], value: str, where: str) -> str:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as e:
        raise InputRefused(f"{where} is not valid YAML; mend it, and run this again") from e
    if node is None:
        return f"{text.rstrip()}\n{_block(path, value, 0)}\n".lstrip("\n")
    for depth, name in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise InputRefused(
                f"{where}: {'.'.join(path[:depth]) or 'it'} is no mapping; mend it, and run this "
                "again"
            )
        found = next((pair for pair in node.value if pair[0].value == name), None)
        if found is None:
            return _inserted(text, node, path[depth:], value)
        key, child = found
        is_last = depth == len(path) - 1
        if is_last or (isinstance(child, yaml.ScalarNode) and not child.value):
            # Of what is there and empty, such as `listen:`, too.
            made = _flow(path[depth + 1 :], value)
            return _replaced(text, key, child, made)
        node = child
    raise AssertionError("a path has names")


def _replaced(text: str, key: Any, old: Any, made: str) -> str:
    start, end = old.start_mark.index, old.end_mark.index
    if start == end:  # nothing stands after the colon
        start = end = text.index(":", key.end_mark.index) + 1
        made = f" {made}"
    elif not isinstance(old, yaml.ScalarNode) and not old.flow_style:
        raise AssertionError("options that are set are scalars")
    return text[:start] + made + text[end:]


def _inserted(text: str, into: Any, path: tuple[str, ...], value: str) -> str:
    """At the begin of a mapping."""
    start = into.start_mark
    if into.flow_style:
        at = start.index + 1
        comma = ", " if into.value else ""
        return f"{text[:at]}{json.dumps(path[0])}: {_flow(path[1:], value)}{comma}{text[at:]}"
    indent = " " * start.column
    return (
        f"{text[: start.index]}{_block(path, value, start.column)}\n{indent}{text[start.index :]}"
    )


def _block(path: tuple[str, ...], value: str, column: int) -> str:
    lines = [f"{'  ' * n}{_key(name)}:" for n, name in enumerate(path)]
    return f"\n{' ' * column}".join(lines) + f" {json.dumps(value)}"


def _flow(path: tuple[str, ...], value: str) -> str:
    if not path:
        return json.dumps(value)
    return f"{{{json.dumps(path[0])}: {_flow(path[1:], value)}}}"


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name)
