# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers requests by the table of collections: lists, one of them, changes, actions, links.

No sockets here: a request, who asks and a body go in, a status and an object come out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cinderengine.api.faults import NotAllowed
from cinderengine.api.parts import Parts
from cinderengine.api.request import PREFIXES, Request, body_media, target
from cinderengine.api.resources.following import Following
from cinderengine.api.resources.root import root
from cinderengine.api.resources.table import Call, Collection, Place, place
from cinderengine.api.search.evaluate import apply, page
from cinderengine.api.search.parser import parse
from cinderengine.api.search.selection import selection
from cinderengine.api.types import dialects
from cinderengine.api.types.entity import Entity, Link, Many, entity, filled
from cinderengine.api.types.registry import TYPES
from cinderengine.errors import Denied, Incomplete, NotFound
from cinderengine.flows.caller import Caller

log = logging.getLogger(__name__)
T = TypeVar("T")
# As many objects are shown, searched or written before others are served.
AT_ONCE = 200
READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Answer:
    """status: of HTTP. content: the body; None for none. location: below the API's root."""

    status: int
    content: Entity | Many | None = None
    location: str = ""
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Api:
    """The served collections over the parts that they need."""

    parts: Parts
    roots: Sequence[Collection[Any]]

    async def answer(self, request: Request, caller: Caller, body: bytes) -> Answer:
        """Raises EngineError for what is not done."""
        if not caller.user.administrator:
            raise Denied(
                f"user {caller.user.principal} is no administrator, and others have no permissions "
                "here yet; log in as one"
            )
        if not request.segments:
            return await self._root(request)
        where = place(self.roots, request.segments)
        if request.method not in where.methods:
            raise NotAllowed(
                f"{request.method} is nothing that {'/'.join(request.segments)[:200]} can do; it "
                f"can do {', '.join(sorted(where.methods))}",
                where.methods,
            )
        if request.method == "OPTIONS":
            return Answer(200, allowed=where.methods)
        call = Call(self.parts, caller, request, where.ids)
        for above in where.above:
            await _row(call, above)
        return await self._served(call, where, body)

    async def _root(self, request: Request) -> Answer:
        if request.method not in READ_ONLY:
            raise NotAllowed("the API's root can be read only", READ_ONLY)
        if request.method == "OPTIONS":
            return Answer(200, allowed=READ_ONLY)
        return Answer(200, await root(self.parts, self.roots, request.version))

    async def _served(self, call: Call, where: Place, body: bytes) -> Answer:
        match call.request.method:
            case "POST" if where.action:
                return await self._act(call, where, body)
            case "POST":
                return await self._add(call, where, body)
            case "PUT":
                return await self._edit(call, where, body)
            case "DELETE":
                return await self._remove(call, where)
        content = await self.content(call, where)
        paths = [*call.request.follow]
        if call.request.all_content:
            paths += [(name,) for name in where.collection.whole]
        if paths:
            following = Following(functools.partial(self._at, call))
            content = await following.into(content, paths)
        return Answer(200, content)

    async def _at(self, call: Call, href: str) -> Entity | Many | None:
        """What is at an href below the API's root; None if nothing is there any more."""
        segments = target(f"{PREFIXES[0]}{href}").segments
        # What was asked for is searched and cut; what it leads to is whole.
        request = Request("GET", call.request.base, segments, call.request.version)
        try:
            where = place(self.roots, segments)
            return await self.content(Call(call.parts, call.caller, request, where.ids), where)
        except NotFound:
            return None

    async def content(self, call: Call, where: Place) -> Entity | Many:
        """What is at a place. Raises NotFound."""
        collection = where.collection
        if where.one:
            return linked(collection, collection.show(call, await _row(call, collection)))
        rows = await _rows(call, collection)
        shown: list[Entity] = []
        for row in rows:
            shown.append(linked(collection, collection.show(call, row)))
            if len(shown) % AT_ONCE == 0:
                await asyncio.sleep(0)
        return Many(TYPES[collection.type], shown)

    async def _add(self, call: Call, where: Place, body: bytes) -> Answer:
        collection = where.collection
        assert collection.add is not None
        sent = _read(call.request, collection.type, body)
        added = linked(collection, collection.show(call, await collection.add(call, sent)))
        return Answer(201, added, location=added.href)

    async def _edit(self, call: Call, where: Place, body: bytes) -> Answer:
        collection = where.collection
        assert collection.edit is not None
        await _row(call, collection)
        row = await collection.edit(call, _read(call.request, collection.type, body))
        return Answer(200, linked(collection, collection.show(call, row)))

    async def _remove(self, call: Call, where: Place) -> Answer:
        collection = where.collection
        assert collection.remove is not None
        await _row(call, collection)
        # Version 3's clients send an action or the object, and nothing of either is needed.
        await collection.remove(call)
        accepted = call.request.accepted
        status = "pending" if accepted else "complete"
        return Answer(202 if accepted else 200, entity("action", status=status))

    async def _act(self, call: Call, where: Place, body: bytes) -> Answer:
        collection = where.collection
        sent = _read(call.request, "action", body, optional=True)
        told = await collection.actions[where.action](call, sent)
        return Answer(200, filled("action", {"status": "complete", **(told or {})}))


def linked(collection: Collection[Any], shown: Entity) -> Entity:
    """An object with links to what is under it and to its actions."""
    if not shown.href:
        return shown
    under = tuple(Link(below.name, f"{shown.href}/{below.name}") for below in collection.under)
    actions = tuple(Link(name, f"{shown.href}/{name}") for name in collection.actions)
    return dataclasses.replace(shown, links=(*shown.links, *under), actions=actions)


async def _row(call: Call, collection: Collection[Any]) -> Any:
    """The row of the call's id. Raises NotFound."""
    wanted = call.id(collection.name)
    if collection.row is not None:
        found = await collection.row(call)
    else:
        rows = await collection.rows(call)
        found = next((row for row in rows if collection.show(call, row).id == wanted), None)
    if found is None:
        what = collection.type.replace("_", " ")
        raise NotFound(
            f"{what} {wanted[:60]} does not exist; list {collection.name} for those that do"
        )
    return found


async def _rows(call: Call, collection: Collection[Any]) -> Sequence[Any]:
    """Those that are asked for. Raises Invalid for a search that cannot be."""
    request = call.request
    most = request.number("max")
    if not collection.fields:
        # oVirt searches no such collection; clients look through it themselves.
        return page(await collection.rows(call), None, most)
    search = parse(request.parameters.get("search", ""))
    exact_case = request.flag("case_sensitive", default=True)
    if collection.selected is not None:
        chosen = selection(search, collection.columns, most, exact_case=exact_case)
        rows = await collection.selected(call, chosen) if chosen is not None else None
        if rows is not None:
            return rows
    rows = await collection.rows(call)
    look = functools.partial(apply, search, rows, collection.fields, exact_case=exact_case)
    return page(await aside(look, len(rows)), search.page, most)


def _read(request: Request, kind: str, body: bytes, *, optional: bool = False) -> Entity:
    """What was sent. Raises Invalid, and Incomplete if nothing was."""
    declared = TYPES[kind]
    if not body.strip():
        if optional:
            return entity(kind)
        raise Incomplete(f"the request has no body; send a {kind} as XML or JSON")
    media = body_media(request.content_type, body)
    document = dialects.reads(media, body, declared, request.version)
    if document.ignored:
        log.info(
            "request %s: fields that are not known are ignored: %s",
            request.correlation_id,
            ", ".join(document.ignored),
        )
    return document.entity


async def written(answer: Entity | Many, request: Request) -> bytes:
    """A body in the dialect that was asked for."""
    write = functools.partial(
        dialects.writes, request.writes, answer, request.version, request.base
    )
    return await aside(write, len(answer.items) if isinstance(answer, Many) else 1)


async def aside(act: Callable[[], T], count: int) -> T:
    """What a function returns; in a thread if it is about many, so that others are served."""
    return await asyncio.to_thread(act) if count > AT_ONCE else act()
