# SPDX-License-Identifier: GPL-2.0-or-later
"""What a collection of the API is made of, and which of them a path leads to.

A collection says how what is in it is listed, shown, added, edited and removed; what it cannot do
it leaves out. How that becomes an answer is the business of serving.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cinderengine.api.parts import Parts
from cinderengine.api.request import Request
from cinderengine.api.search.evaluate import Fields
from cinderengine.api.search.selection import Columns, Selection
from cinderengine.api.types.entity import Entity
from cinderengine.errors import NotFound
from cinderengine.flows.caller import Caller

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request that is being served. ids: of what it is about, by the names in its path."""

    parts: Parts
    caller: Caller
    request: Request
    ids: Mapping[str, str] = field(default_factory=dict)

    def id(self, collection: str) -> str:
        """The id that stands behind a collection in the path, such as disks."""
        return self.ids[collection]


@dataclass(frozen=True)
class Accepted:
    """What a change leaves behind. goes_on: whether a job of it does."""

    goes_on: bool = False


Act = Callable[[Call, Entity], Awaitable[Mapping[str, Entity] | None]]


@dataclass(frozen=True)
class Collection(Generic[T]):
    """Objects of one type. name: in paths, and the `rel` of links to it.

    rows: all that there are. row: that of the call's id; where it is left out, rows are looked
    through. show: one as the API has it. add, edit: take what was sent, return what it became.
    whole: the names of what is put into one where all of its content is asked for.
    fields: what it can be searched by. actions: by name; what they return stands in the answer.
    selected, columns: for large ones: rows as a query finds them, which of the fields are columns;
    None if those that are asked for are in no table.
    """

    name: str
    type: str
    rows: Callable[[Call], Awaitable[Sequence[T]]]
    show: Callable[[Call, T], Entity]
    row: Callable[[Call], Awaitable[T | None]] | None = None
    add: Callable[[Call, Entity], Awaitable[T]] | None = None
    edit: Callable[[Call, Entity], Awaitable[T]] | None = None
    remove: Callable[[Call], Awaitable[None]] | None = None
    whole: tuple[str, ...] = ()
    fields: Fields[T] = field(default_factory=dict)
    selected: Callable[[Call, Selection], Awaitable[Sequence[T] | None]] | None = None
    columns: Columns = field(default_factory=dict)
    actions: Mapping[str, Act] = field(default_factory=dict)
    under: tuple[Collection[Any], ...] = ()

    @property
    def methods(self) -> frozenset[str]:
        """What HTTP can do with the collection itself."""
        return frozenset({"GET", "HEAD", "OPTIONS"} | ({"POST"} if self.add else set()))

    @property
    def methods_of_one(self) -> frozenset[str]:
        """What HTTP can do with one of it."""
        more = {"PUT": self.edit, "DELETE": self.remove}
        return frozenset({"GET", "HEAD", "OPTIONS"} | {name for name, how in more.items() if how})


@dataclass(frozen=True)
class Place:
    """What a path leads to: a collection; one of it, if ids has its name; an action of that one.

    above: the collections of which one was named on the way there.
    """

    collection: Collection[Any]
    ids: Mapping[str, str]
    above: tuple[Collection[Any], ...] = ()
    one: bool = False
    action: str = ""

    @property
    def methods(self) -> frozenset[str]:
        """What HTTP can do there."""
        if self.action:
            return frozenset({"POST", "OPTIONS"})
        return self.collection.methods_of_one if self.one else self.collection.methods


def place(roots: Sequence[Collection[Any]], segments: Sequence[str]) -> Place:
    """Where a path of at least one segment leads. Raises NotFound."""
    among, ids, rest = roots, dict[str, str](), list(segments)
    above: tuple[Collection[Any], ...] = ()
    while rest:
        name = rest.pop(0)
        found = next((one for one in among if one.name == name), None)
        if found is None:
            break
        if not rest:
            return Place(found, ids, above)
        ids[found.name] = rest.pop(0)
        if not rest:
            return Place(found, ids, above, one=True)
        if len(rest) == 1 and rest[0] in found.actions:
            return Place(found, ids, above, one=True, action=rest[0])
        among = found.under
        above = (*above, found)
    known = ", ".join(sorted(one.name for one in among)) or "nothing"
    raise NotFound(f"Nothing is at {'/'.join(segments)[:200]}; below that there is {known}.")


def find(roots: Sequence[Collection[Any]]) -> Sequence[tuple[str, Collection[Any]]]:
    """All collections, each with the path that leads to it, such as disks/ID/statistics."""
    found: list[tuple[str, Collection[Any]]] = []
    for one in roots:
        found.append((one.name, one))
        found += [(f"{one.name}/ID/{path}", below) for path, below in find(one.under)]
    return found
