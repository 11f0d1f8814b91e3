# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/api.md, the reference of all verbs, events, types and error codes, from the schema.

`make api`; a unit test fails while the file is stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vdsmcinder import errors
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.schema.schema import Event, Schema, TypeDoc
from vdsmcinder.rpc.schema.types import Enumeration, MapOf, Record, Type, Union
from vdsmcinder.rpc.schema.verb import Param, Verb

_HEAD = """\
# The API

Every verb, event and type of vdsm-cinderd, as its `schema.yml` declares them. This page is
generated from it: change the schema, then run `make api`.

Requests are JSON-RPC 2.0, with parameters by name or, in the order shown, by position. What the
schema does not know is ignored with a warning in the log. Numbers may be sent as decimal strings,
booleans as `"true"` and `"false"`. A verb that has nothing to return gives `true`.
"""


def page(contract: Schema) -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines(contract)) + "\n"


def _lines(contract: Schema) -> Iterator[str]:
    yield _HEAD
    yield "## Verbs"
    for verb in contract.served:
        yield from _verb(verb, contract)
    yield "\n## Verbs that this version does not serve\n"
    yield "They are answered with code 44.\n"
    for verb in contract.verbs.values():
        if not verb.served:
            yield f"- `{verb.signature()}`: {verb.description}"
    yield "\n## Events"
    for event in contract.events:
        yield from _event(event, contract)
    yield "\n## Error codes\n"
    yield "| code | meaning |\n|---|---|"
    for code, meaning in sorted(_codes().items()):
        yield f"| {code} | {meaning} |"
    yield "\n## Types"
    for doc in contract.types.values():
        yield from _type(doc, contract)


def _verb(verb: Verb, contract: Schema) -> Iterator[str]:
    yield f"\n### {verb.name}\n"
    yield f"`{verb.signature()}` → {_link(verb.result, contract)}\n"
    yield verb.description
    if verb.ours:
        yield "\nAn addition of vdsm-cinder's own, which engines do not know."
    if verb.params:
        yield "\n| parameter | type | |\n|---|---|---|"
        for param in verb.params:
            yield f"| `{param.name}` | {_link(param.type, contract)} | {_about(param, contract)} |"
    if verb.result_description:
        yield f"\nResult: {verb.result_description}."
    does = "Changes something" if verb.changes else "Only reads"
    yield f"\n{does}, for role `{verb.role.value}`. {_errors(verb)}"


def _about(param: Param, contract: Schema) -> str:
    parts = [param.description]
    if param.optional:
        parts.append("optional" if param.default is None else f"default `{param.default_text()}`")
    if param.secret:
        parts.append("may hold a secret")
    return "; ".join(parts)


def _errors(verb: Verb) -> str:
    return f"Errors: {', '.join(str(c) for c in sorted(verb.codes))}."


def _event(event: Event, contract: Schema) -> Iterator[str]:
    yield f"\n### `{event.name}`\n"
    yield event.description
    yield f"\nParams: {_link(event.params, contract)}"


def _type(doc: TypeDoc, contract: Schema) -> Iterator[str]:
    yield f"\n### {doc.name}\n"
    if doc.description:
        yield f"{doc.description}\n"
    kind = doc.type
    if isinstance(kind, Record):
        yield "| member | type |\n|---|---|"
        for f in kind.fields.values():
            yield f"| `{f.name}` | {_link(f.type, contract)}{', optional' if f.optional else ''} |"
    elif isinstance(kind, Enumeration):
        values = (f"`{v}`{_named(kind, v)}" for v in kind.values)
        yield f"One of {', '.join(values)}."
    elif isinstance(kind, Union):
        yield f"One of {', '.join(_link(t, contract) for t in kind.alternatives)}."
    elif isinstance(kind, MapOf):
        yield f"A {_link(kind, contract)}."


def _named(kind: Enumeration, value: str | int) -> str:
    return f" ({kind.names[value]})" if isinstance(value, int) and value in kind.names else ""


def _link(kind: Type, contract: Schema) -> str:
    """The type's label, in which each defined type leads to its section."""

    def linked(match: re.Match[str]) -> str:
        name = match[0]
        return f"[{name}](#{name.lower()})" if name in contract.types else name

    label = kind.label.replace("[", "\\[").replace("]", "\\]").replace("->", "→")
    return re.sub(r"\w+", linked, label)


def _codes() -> dict[int, str]:
    """Each code and what it means; subclasses in other modules share the code of one of these."""
    classes = [c for c in VdsmCinderError.__subclasses__() if c.__module__ == errors.__name__]
    return {c.code: (c.__doc__ or "").split("\n")[0] for c in classes}


if __name__ == "__main__":
    print(page(schema.load()), end="")
