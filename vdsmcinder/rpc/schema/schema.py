# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract as data: every verb, event and type that schema.yml declares.

Requests are validated by it; docs/api.md, and the help and completion of the vdsm-cinder command,
come out of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vdsmcinder.rpc.schema.types import (
    BUILTIN,
    Enumeration,
    Field,
    ListOf,
    MapOf,
    Record,
    Reference,
    Type,
    Union,
    outline,
)
from vdsmcinder.rpc.schema.verb import Param, Verb

# libyaml's parser is ten times faster; distributions build PyYAML with it, wheels for odd
# platforms may come without.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NO_DEFAULT: Any = object()
_PARAM_KEYS = {"name", "type", "lenient", "optional", "default", "secret", "description"}
_VERB_KEYS = {
    "description",
    "params",
    "result",
    "errors",
    "changes",
    "shows",
    "callers",
    "needs",
    "served",
    "ours",
}
_TYPE_FORMS = {"object", "enum", "one of", "map"}


class SchemaError(Exception):
    """schema.yml does not hold together; the message names the entry."""


@dataclass(frozen=True)
class Event:
    """One notification; name holds <vmId> where the VM's id goes, params is its type."""

    name: str
    description: str
    params: Type


@dataclass(frozen=True)
class TypeDoc:
    """A named type as documentation shows it."""

    name: str
    type: Type
    description: str


@dataclass(frozen=True)
class Schema:
    """The whole contract; all in the order of schema.yml."""

    verbs: Mapping[str, Verb]
    events: tuple[Event, ...]
    types: Mapping[str, TypeDoc]

    def type(self, name: str) -> Type:
        """The type of that name, built in or defined."""
        return BUILTIN[name] if name in BUILTIN else self.types[name].type

    @property
    def served(self) -> list[Verb]:
        """The verbs that have a handler."""
        return [v for v in self.verbs.values() if v.served]


@functools.cache
def load() -> Schema:
    """The package's schema.yml, read once. Raises SchemaError if it does not hold together."""
    return parse((Path(__file__).parent.parent / "schema.yml").read_text(encoding="utf-8"))


def parse(text: str) -> Schema:
    """Build a Schema from YAML text (its head says how it is written)."""
    content = yaml.load(text, Loader=_Loader)
    builder = _Builder(content.get("types") or {})
    return Schema(
        verbs={name: builder.verb(name, d) for name, d in content["verbs"].items()},
        events=tuple(builder.event(name, d) for name, d in (content.get("events") or {}).items()),
        types=builder.type_docs(),
    )


class _Builder:
    """Turns the plain data of YAML into the classes above; definitions are those of types."""

    def __init__(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        self._definitions = definitions
        self._types: dict[str, Type] = {}
        for name, definition in definitions.items():
            self._types[name] = self._defined(name, definition)

    def type_docs(self) -> dict[str, TypeDoc]:
        return {
            name: TypeDoc(name, self._types[name], _sentence(d.get("description")))
            for name, d in self._definitions.items()
        }

    def verb(self, name: str, d: Mapping[str, Any]) -> Verb:
        _refuse_unknown(d, _VERB_KEYS, name)
        result = d["result"] if isinstance(d["result"], dict) else {"type": d["result"]}
        return Verb(
            name=name,
            description=_sentence(d["description"]),
            params=tuple(self._param(name, p) for p in d.get("params", ())),
            result=self.inline(result["type"], name),
            result_description=_sentence(result.get("description")),
            errors=tuple(d.get("errors", ())),
            changes=d.get("changes", False),
            for_hosts=d.get("callers") == "hosts",
            shows_secrets=d.get("shows") == "secrets",
            needs_vms=d.get("needs") == "vms",
            served=d.get("served", True),
            ours=d.get("ours", False),
        )

    def event(self, name: str, d: Mapping[str, Any]) -> Event:
        _refuse_unknown(d, {"description", "params"}, name)
        return Event(name, _sentence(d["description"]), self.inline(d["params"], name))

    def inline(self, written: Any, where: str) -> Type:
        """A type as entries refer to it: Name, [Name] or {Name: Name}, to any depth."""
        if isinstance(written, str):
            return self._named(written, where)
        if isinstance(written, list) and len(written) == 1:
            return ListOf(self.inline(written[0], where))
        if isinstance(written, dict) and len(written) == 1:
            ((key, value),) = written.items()
            return MapOf(self.inline(key, where), self.inline(value, where))
        raise SchemaError(f"{where}: {written!r} is not a type: Name, [Name] or {{Name: Name}}")

    def _named(self, name: str, where: str) -> Type:
        if name in BUILTIN:
            return BUILTIN[name]
        if name in self._definitions:
            return Reference(name, self._types)
        raise SchemaError(f"{where}: type {name} is not defined; add it under types")

    def _defined(self, name: str, d: Mapping[str, Any]) -> Type:
        form = _TYPE_FORMS & d.keys()
        if len(form) != 1 or d.keys() - form - {"description"}:
            raise SchemaError(f"{name}: a type has one of {', '.join(sorted(_TYPE_FORMS))}")
        if "object" in d:
            return Record(name, {f.name: f for f in self._fields(name, d["object"])})
        if "one of" in d:
            return Union(name, [self.inline(t, name) for t in d["one of"]])
        if "map" in d:
            return self.inline(d["map"], name)
        names = d["enum"] if isinstance(d["enum"], dict) else {}
        return Enumeration(name, list(d["enum"]), names)

    def _fields(self, name: str, members: Mapping[str, Any]) -> list[Field]:
        """Members are 'name: type', and 'name?: type' where they may be absent."""
        return [
            Field(n.rstrip("?"), self.inline(t, f"{name}.{n}"), n.endswith("?"))
            for n, t in members.items()
        ]

    def _param(self, verb: str, d: Mapping[str, Any]) -> Param:
        where = f"{verb}: parameter {d.get('name')}"
        _refuse_unknown(d, _PARAM_KEYS, where)
        kind = self.inline(d["type"], where)
        default = d.get("default", _NO_DEFAULT)
        return Param(
            name=d["name"],
            type=kind,
            checked=outline(kind, lenient=d.get("lenient", False)),
            optional=d.get("optional", False) or default is not _NO_DEFAULT,
            default=None if default is _NO_DEFAULT else default,
            secret=d.get("secret", False),
            description=_sentence(d["description"]),
        )


def _sentence(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def _refuse_unknown(d: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(d.keys() - known)
    if unknown:
        raise SchemaError(
            f"{where}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}"
        )
