# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of a verb from the words of a command line: name=value, name=@file, name=@-.

The schema says of which type each parameter is, and which ones are secret and therefore never taken
from an argument.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from vdsmcinder.client import sources
from vdsmcinder.client.exit_codes import InputRefused, UsageError
from vdsmcinder.rpc.schema.types import Enumeration, Mismatch, Reference, Scalar, Type
from vdsmcinder.rpc.schema.verb import Param, Verb


def parameters(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """The parameters that the words give to the verb.

    Raises UsageError for words that do not fit the verb, InputRefused for a file that cannot be
    read or holds something else than it should.
    """
    given: dict[str, Any] = {}
    known = {param.name: param for param in verb.params}
    for word in words:
        name, equals, written = word.partition("=")
        if not equals:
            raise UsageError(f"{name}: a parameter is written name=value or name=@file")
        if name not in known:
            raise UsageError(f"{verb.name} has no parameter {name}; {_known(name, known)}")
        if name in given:
            raise UsageError(f"parameter {name} is given twice; leave one out")
        given[name] = value(known[name], written)
    missing = [p.name for p in verb.params if not p.optional and p.name not in given]
    if missing:
        raise UsageError(f"parameter {missing[0]} is missing; use: {verb.signature()}")
    return given


def value(param: Param, written: str) -> Any:
    """What the right side of name=value stands for, by the parameter's type.

    '@path' is what the file holds, '@-' what stdin holds, '@@text' the text '@text'.
    """
    if written.startswith("@") and not written.startswith("@@"):
        path = written[1:]
        text = sources.read_text(path).rstrip("\n")
        return _typed(param, text, f"{param.name}: {sources.named(path)}")
    if param.secret:
        raise UsageError(
            f"{param.name} is secret and an argument is not: everyone on this host can see it; "
            f"use {param.name}=@FILE or {param.name}=@- for stdin"
        )
    literal = written[1:] if written.startswith("@@") else written
    try:
        return _typed(param, literal, param.name)
    except InputRefused as e:
        raise UsageError(str(e)) from None


def _typed(param: Param, text: str, where: str) -> Any:
    kind = _resolved(param.type)
    if isinstance(kind, Scalar) and kind.label not in ("any", "map"):
        return _checked(kind, text, where)
    if isinstance(kind, Enumeration):
        by_text = {str(v): v for v in kind.values}
        return by_text.get(text) if text in by_text else _checked(kind, text, where)
    return sources.parse_json(text, where)


def _checked(kind: Type, text: str, where: str) -> Any:
    try:
        return kind.read(text, where)
    except Mismatch as e:
        raise InputRefused(str(e)) from None


def _resolved(kind: Type) -> Type:
    while isinstance(kind, Reference):
        kind = kind.types[kind.label]
    return kind


def _known(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"it has {', '.join(known)}" if known else "it has none"
