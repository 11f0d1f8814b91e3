# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's code as what its names stand for: modules, functions, classes and their attributes.

answers.py goes through it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from tests.pages import REPOSITORY

PACKAGE = "vdsmcinder"
PARTS = ("rpc", "virt", "host", "ceph", "hypervisor", "fields", "uuids")
# Methods of Python's own collections and text, which are not ours where the type is not known.
BUILTIN = frozenset(n for t in (dict, list, set, str, bytes, tuple) for n in dir(t))


@dataclass
class Class:
    """A class of the package: its methods, and the types of its attributes as written."""

    module: Module
    name: str
    bases: list[ast.expr]
    methods: dict[str, ast.AST] = field(default_factory=dict)
    attributes: dict[str, ast.expr] = field(default_factory=dict)


@dataclass
class Module:
    """A file of the package: what its names stand for."""

    name: str
    imports: dict[str, str] = field(default_factory=dict)
    functions: dict[str, ast.AST] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    values: dict[str, ast.expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Function:
    """A function or method, with the module and the class that it stands in."""

    module: str
    owner: str | None
    name: str


@dataclass(frozen=True)
class Listed:
    """The type of a collection, by that of its elements."""

    element: Kind


# A class of the package, or a collection of such; None is what is not known.
Kind = Union[Class, Listed, None]


class Source:
    """The parts of the package from which verbs are answered."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}
        for part in PARTS:
            path = REPOSITORY / PACKAGE / part
            for file in [path.with_suffix(".py")] if not path.is_dir() else path.rglob("*.py"):
                self._read(file.relative_to(REPOSITORY).with_suffix("").parts, file.read_text())
        self._by_method: dict[str, list[Class]] = {}
        for module in self.modules.values():
            for cls in module.classes.values():
                for name in cls.methods:
                    self._by_method.setdefault(name, []).append(cls)

    def only_method(self, name: str) -> Class | None:
        """The class that has a method of that name, if no other has."""
        found = self._by_method.get(name, []) if name not in BUILTIN else []
        return found[0] if len(found) == 1 else None

    def resolve(self, module: Module, name: str) -> tuple[Module | None, str | None]:
        """The module that defines a name, and the name there; no name for a module itself."""
        target = module.imports.get(name)
        if target is None:
            return module, name
        if target in self.modules:
            return self.modules[target], None
        parent, _, last = target.rpartition(".")
        return self.modules.get(parent), last

    def class_of(self, module: Module, name: str) -> Class | None:
        where, there = self.resolve(module, name)
        return None if where is None or there is None else where.classes.get(there)

    def method(self, cls: Class, name: str) -> Function | None:
        """A method of a class or of what it inherits from."""
        if name in cls.methods:
            return Function(cls.module.name, cls.name, name)
        for base in cls.bases:
            parent = isinstance(base, ast.Name) and self.class_of(cls.module, base.id)
            found = self.method(parent, name) if parent else None
            if found is not None:
                return found
        return None

    def definition(self, function: Function) -> ast.AST:
        module = self.modules[function.module]
        if function.owner is None:
            return module.functions[function.name]
        return module.classes[function.owner].methods[function.name]

    def _read(self, parts: tuple[str, ...], text: str) -> None:
        name = ".".join(parts).removesuffix(".__init__")
        module = self.modules[name] = Module(name)
        for node in ast.parse(text).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                source = getattr(node, "module", None)
                for alias in node.names:
                    full = f"{source}.{alias.name}" if source else alias.name
                    module.imports[alias.asname or alias.name] = full
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                module.functions[node.name] = node
            elif isinstance(node, ast.ClassDef):
                module.classes[node.name] = _read_class(module, node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.values[node.targets[0].id] = node.value
            elif (
                isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
            ):
                module.values[node.target.id] = node.value


def _read_class(module: Module, node: ast.ClassDef) -> Class:
    cls = Class(module, node.name, node.bases)
    for item in node.body:
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            cls.methods[item.name] = item
            if item.returns and "property" in map(last_name, item.decorator_list):
                cls.attributes[item.name] = item.returns
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            cls.attributes[item.target.id] = item.annotation
    init = cls.methods.get("__init__")
    if isinstance(init, ast.FunctionDef):
        given = {a.arg: a.annotation for a in [*init.args.args, *init.args.kwonlyargs]}
        target: ast.expr
        value: ast.expr | None
        for node_ in ast.walk(init):
            if isinstance(node_, ast.AnnAssign):
                target, value = node_.target, node_.annotation
            elif isinstance(node_, ast.Assign):
                target = node_.targets[0]
                value = _annotation_of(node_.value, given)
            else:
                continue
            if isinstance(target, ast.Attribute) and value is not None:
                cls.attributes.setdefault(target.attr, value)
    return cls


def _annotation_of(value: ast.expr, given: Mapping[str, ast.expr | None]) -> ast.expr | None:
    """The type of what a constructor gives an attribute: a parameter's, or the class it makes."""
    if isinstance(value, ast.Name):
        return given.get(value.id)
    if isinstance(value, ast.Call):
        return value.func
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        # parameter.attribute: followed when it is looked up.
        owner = given.get(value.value.id)
        return None if owner is None else ast.Attribute(value=owner, attr=value.attr)
    return None


def last_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
