# SPDX-License-Identifier: GPL-2.0-or-later
"""What the schema says about verbs, for a terminal."""

from __future__ import annotations

import difflib
import json
import textwrap
from typing import Any

from vdsmcinder.client import tables
from vdsmcinder.client.exit_codes import UsageError
from vdsmcinder.client.tables import Column
from vdsmcinder.rpc.schema.schema import Schema
from vdsmcinder.rpc.schema.types import Enumeration, ListOf, MapOf, Outline, Record, Reference, Type
from vdsmcinder.rpc.schema.verb import Param, Verb

WIDTH = 96


def named(schema: Schema, name: str) -> Verb:
    """The verb of that name. Raises UsageError with the closest one."""
    if name in schema.verbs:
        return schema.verbs[name]
    close = difflib.get_close_matches(name, schema.verbs, n=1)
    hint = f"did you mean {close[0]}?" if close else "vdsm-cinder verbs lists them"
    raise UsageError(f"there is no verb {name}; {hint}")


def listing(schema: Schema) -> str:
    """All verbs that are served, one a line, with what they do."""
    rows = [(verb.name, _first_sentence(verb.description)) for verb in schema.served]
    return tables.table([Column("VERB"), Column("WHAT IT DOES", shrinks_to=20)], rows)


def page(verb: Verb) -> str:
    """Everything the schema says of one verb."""
    parts = [verb.signature(), "", _filled(verb.description, 2)]
    if not verb.served:
        parts.append(_filled("This version does not serve it: it is answered with code 44.", 2))
    if verb.params:
        parts += ["", "Parameters:", *(_parameter(p) for p in verb.params)]
    parts += ["", f"Result: {verb.result.label}"]
    if verb.result_description:
        parts.append(_filled(verb.result_description, 2))
    if verb.errors:
        parts.append(f"Error codes of its own: {', '.join(str(code) for code in verb.errors)}")
    example = " ".join(f"{p.name}={_placeholder(p)}" for p in verb.params if not p.optional)
    parts += ["", f"Use: vdsm-cinder call {verb.name} {example}".rstrip()]
    return "\n".join(parts)


def as_fields(verb: Verb) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "verb": verb.name,
        "description": verb.description,
        "parameters": [
            {
                "name": p.name,
                "type": p.type.label,
                "optional": p.optional,
                "default": p.default,
                "secret": p.secret,
                "description": p.description,
            }
            for p in verb.params
        ],
        "result": verb.result.label,
        "errors": list(verb.errors),
        "served": verb.served,
    }


def _parameter(param: Param) -> str:
    kind = param.type.label
    default = "" if param.default is None else f", {json.dumps(param.default)} if left out"
    need = f"optional{default}" if param.optional else "required"
    lines = [f"  {param.name}: {kind}, {need}", _filled(param.description, 6)]
    members = _members(param.type)
    if members:
        lines.append(_filled(members, 6))
    return "\n".join(lines)


def _members(kind: Type) -> str:
    while isinstance(kind, (Reference, ListOf)):
        kind = kind.element if isinstance(kind, ListOf) else kind.types[kind.label]
    if isinstance(kind, Enumeration):
        return "one of: " + ", ".join(str(value) for value in kind.values)
    if isinstance(kind, Record):
        names = (f"{f.name}?" if f.optional else f.name for f in kind.fields.values())
        return "members: " + ", ".join(names)
    return ""


def _placeholder(param: Param) -> str:
    if param.secret or isinstance(param.checked, (ListOf, MapOf, Outline)):
        return "@FILE"
    return param.type.label.upper() if param.type.label != "UUID" else "ID"


def _first_sentence(text: str) -> str:
    head, dot, _ = text.partition(". ")
    return head + "." if dot else text


def _filled(text: str, indent: int) -> str:
    prefix = " " * indent
    return textwrap.fill(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix)
