# SPDX-License-Identifier: GPL-2.0-or-later
"""How the packages are laid out: imports go down only, nothing goes in circles, rooms stay small.

docs/contributing.md shows the daemon's parts. Imports are read from the source, those below
TYPE_CHECKING and in functions too: a circle that is hidden there is one.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.pages import REPOSITORY

# Hosts' older Pythons cannot read the engine, which they never have.
ENGINE = ("cinderengine",) if sys.version_info >= (3, 11) else ()
PACKAGES = ("vdsmcinder", *ENGINE, "lab", "bench")
# Besides what all may know, what each part of the daemon may know of the others.
FOR_ALL = {
    *("", "cephx_keys", "config", "errors", "fair_scheduling", "fields", "logs", "system", "tasks"),
    *("revocation", "tls_errors", "uuids"),
}
KNOWS = {
    "client": {"ceph", "host", "monitoring", "rpc", "stomp", "transport", "virt"},
    "monitoring": {"ceph", "host", "hypervisor", "rpc", "transport", "virt"},
    "peer_client": {"rpc", "stomp", "virt"},
    "transport": {"rpc", "stomp"},
    "rpc": {"ceph", "host", "hypervisor", "virt"},
    "virt": {"ceph", "hypervisor"},
    "host": {"hypervisor"},
    "ceph": set(),
    "hypervisor": set(),
    "stomp": set(),
}
# The same of the engine's parts.
ENGINE_FOR_ALL = {"", "errors", "logs", "model"}
ENGINE_KNOWS = {
    "portal": {"access", "flows", "store"},
    "api": {"access", "flows", "store"},
    "flows": {"access", "hosts", "jobs", "store", "volumes"},
    "jobs": {"store"},
    "access": {"store"},
    "hosts": {"store"},
    "volumes": set(),
    "authorities": set(),
    "store": set(),
    "config": set(),
    "system": set(),
}
# What puts all of it together, and is known by no part.
ENGINE_ABOVE_ALL = {"commands", "engine", "joining_pages", "main", "opening", "serve"}
# All that the engine may take from the daemon: what speaks the wire.
WIRE = re.compile(r"vdsmcinder\.(stomp|rpc\.schema|errors|tasks|tls_errors)(\.|$)")
# The command's rooms, those of the verbs, and a VM's parts are one with the room that they are in.
ONE_HOUSE = ("vdsmcinder.client", "vdsmcinder.rpc", "vdsmcinder.virt.vm")
MOST_FILES = 16

Graph = Mapping[str, Collection[str]]


@cache
def modules() -> Mapping[str, Path]:
    """The file of each module of our packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """The dotted names of our modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else str(node.module) for name in inside]
        else:
            continue
        yield from (name for name in names if name in modules())


@cache
def files() -> Graph:
    """What each module imports of the others."""
    return {name: set(imported(path)) - {name} for name, path in modules().items()}


def room(module: str) -> str:
    """The package that a module is in; the module itself where it stands at the top of one."""
    for house in ONE_HOUSE:
        if module.startswith(f"{house}."):
            return house
    package = module if modules()[module].stem == "__init__" else module.rpartition(".")[0]
    return module if package in PACKAGES else package


def part(module: str) -> str:
    """The first name below vdsmcinder."""
    return module.split(".")[1] if "." in module else ""


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected parts of more than one (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


@pytest.mark.parametrize("above", KNOWS)
def test_imports_go_down_only(above: str) -> None:
    allowed = FOR_ALL | KNOWS[above] | {above}
    ours = {m: known for m, known in files().items() if m.startswith("vdsmcinder")}
    assert [
        (module, name)
        for module, known in ours.items()
        for name in known
        if part(module) == above and part(name) not in allowed
    ] == []


def test_what_all_know_knows_nothing_above() -> None:
    ours = {m: known for m, known in files().items() if m.startswith("vdsmcinder")}
    assert [
        (module, name)
        for module, known in ours.items()
        for name in known
        if part(module) in FOR_ALL and part(name) not in FOR_ALL
    ] == []


@pytest.mark.parametrize("above", ENGINE_KNOWS)
def test_imports_of_the_engine_go_down_only(above: str) -> None:
    allowed = ENGINE_FOR_ALL | ENGINE_KNOWS[above] | {above}
    ours = {m: known for m, known in files().items() if m.startswith("cinderengine")}
    assert [
        (module, name)
        for module, known in ours.items()
        for name in known
        if part(module) == above
        and (part(name) not in allowed if name.startswith("cinderengine") else not WIRE.match(name))
    ] == []


def test_every_part_of_the_engine_has_its_place() -> None:
    parts = {part(module) for module in modules() if module.startswith("cinderengine")}
    assert parts <= ENGINE_FOR_ALL | set(ENGINE_KNOWS) | ENGINE_ABOVE_ALL


def test_the_daemon_knows_nothing_of_the_engine() -> None:
    assert [
        (module, name)
        for module, known in files().items()
        for name in known
        if module.startswith("vdsmcinder") and name.startswith("cinderengine")
    ] == []


def test_every_part_of_the_daemon_has_its_place() -> None:
    parts = {part(module) for module in modules() if module.startswith("vdsmcinder")}
    assert parts == FOR_ALL | set(KNOWS) | {"daemon"}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(files()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, known in files().items():
        rooms.setdefault(room(module), set()).update(room(name) for name in known)
    assert circles({name: known - {name} for name, known in rooms.items()}) == []


def test_circles_are_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_room_holds_too_many_files(package: str) -> None:
    rooms: dict[Path, int] = {}
    for module, path in modules().items():
        if module.split(".")[0] == package:
            rooms[path.parent] = rooms.get(path.parent, 0) + (path.stem != "__init__")
    crowded = {str(room.relative_to(REPOSITORY)): n for room, n in rooms.items() if n > MOST_FILES}
    assert crowded == {}
