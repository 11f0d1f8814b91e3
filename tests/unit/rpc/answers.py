# SPDX-License-Identifier: GPL-2.0-or-later
"""Which errors a function of the daemon may raise, read from its code and from what it calls.

An error class that stands in a function counts, wherever it is not merely caught: raised there, or
given on as what to raise (failure=...). So do those of the functions that it names, be it to call
them or to have them called, unless their work is left to a task of its own. What is caught is taken
off again. Types are followed as annotations tell them; a method of a value of unknown type is the
one of that name, if there is only one.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Union

from tests.pages import REPOSITORY
from vdsmcinder import errors
from vdsmcinder.errors import VdsmCinderError

PACKAGE = "vdsmcinder"
PARTS = ("rpc", "virt", "host", "ceph", "hypervisor", "fields", "uuids")
# Their arguments go on by themselves: whoever called them hears nothing of it.
DETACHED = frozenset({"spawn", "create_task", "call_later", "call_soon", "set_exception"})

# Methods of Python's own collections and text, which are not ours where the type is not known.
BUILTIN = frozenset(n for t in (dict, list, set, str, bytes, tuple) for n in dir(t))

Errors = frozenset  # of type[VdsmCinderError]


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


class Code:
    """The package's code. errors_of() tells which errors a function may raise."""

    def __init__(self, instead: Mapping[Function, Errors]) -> None:
        """instead: what functions raise that are not walked."""
        self.modules: dict[str, Module] = {}
        self._instead = instead
        for part in PARTS:
            path = REPOSITORY / PACKAGE / part
            for file in [path.with_suffix(".py")] if not path.is_dir() else path.rglob("*.py"):
                self._read(file.relative_to(REPOSITORY).with_suffix("").parts, file.read_text())
        self._by_method: dict[str, list[Class]] = {}
        for module in self.modules.values():
            for cls in module.classes.values():
                for name in cls.methods:
                    self._by_method.setdefault(name, []).append(cls)
        self._known: dict[Function, Errors] = {}
        self._callers: dict[Function, set[Function]] = {}
        self._open: list[Function] = []

    def errors_of(self, wanted: Function) -> Errors:
        """The error classes. Walked again when more is known of a callee: calls may go in rings."""
        if wanted not in self._known:
            self._known[wanted] = frozenset()
            self._open.append(wanted)
        while self._open:
            function = self._open.pop()
            found = self._instead.get(function)
            if found is None:
                found = _Walk(self, function).errors()
            if found != self._known[function]:
                self._known[function] = found
                self._open += self._callers.get(function, ())
        return self._known[wanted]

    def known(self, function: Function, caller: Function) -> Errors:
        """What is known so far of a function that another one calls."""
        self._callers.setdefault(function, set()).add(caller)
        if function not in self._known:
            self._known[function] = frozenset()
            self._open.append(function)
        return self._known[function]

    def way_to(self, start: Function, error: type[VdsmCinderError]) -> list[str]:
        """From a function to one that raises the error itself, each called by the one before."""
        ways = [[start]]
        seen = {start}
        for way in ways:
            below = [f for f, callers in self._callers.items() if way[-1] in callers]
            below = [f for f in below if error in self._known[f] and f not in seen]
            if not below:
                return [f"{f.module}:{f.owner or ''}.{f.name}" for f in way]
            seen.update(below)
            ways += [[*way, f] for f in below]
        return []

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
            if item.returns and "property" in map(_last_name, item.decorator_list):
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


class _Walk:
    """One function, statement by statement."""

    def __init__(self, code: Code, function: Function) -> None:
        self._code = code
        self._module = code.modules[function.module]
        self._class = self._module.classes.get(function.owner or "")
        self._node = code.definition(function)
        self._function_here = function
        self._types: dict[str, Kind] = {}

    def errors(self) -> Errors:
        node = self._node
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for arg in args:
            self._types[arg.arg] = self._kind(arg.annotation)
        if self._class is not None and args and args[0].arg in ("self", "cls"):
            self._types[args[0].arg] = self._class
        return self._of_all(node.body)

    def _of_all(self, nodes: list[ast.stmt]) -> Errors:
        found: Errors = frozenset()
        for node in nodes:
            found |= self._of(node)
        return found

    def _of(self, node: ast.AST) -> Errors:  # noqa: PLR0911 - one for each kind of node
        if isinstance(node, ast.Try):
            return self._of_try(node)
        if isinstance(node, (ast.With, ast.AsyncWith)):
            return self._of_with(node)
        if isinstance(node, ast.AnnAssign):
            if isinstance(node.target, ast.Name):
                self._types[node.target.id] = self._kind(node.annotation)
            return self._of(node.value) if node.value is not None else frozenset()
        if isinstance(node, ast.Call):
            return self._of_call(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._of_reference(node)
        if isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            kind = self._kind_of(node.iter)
            self._bind(node.target, kind.element if isinstance(kind, Listed) else None)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            generators = [self._of(g) for g in node.generators]
            rest = [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.comprehension)]
            return frozenset().union(*generators, *map(self._of, rest))
        found: Errors = frozenset()
        for child in _children(node):
            found |= self._of(child)
        if isinstance(node, ast.Assign):
            self._bind(node.targets[0], self._kind_of(node.value))
        if isinstance(node, ast.NamedExpr):
            self._bind(node.target, self._kind_of(node.value))
        return found

    def _bind(self, target: ast.expr, kind: Kind) -> None:
        if isinstance(target, ast.Name):
            self._types[target.id] = kind

    def _of_with(self, node: ast.With | ast.AsyncWith) -> Errors:
        found: Errors = frozenset()
        suppressed: list[type] = []
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _last_name(call.func) == "suppress":
                suppressed += [c for a in call.args for c in self._caught(a)]
                continue
            found |= self._of(call)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, self._kind_of(call))
        return found | _without(self._of_all(node.body), suppressed)

    def _of_try(self, node: ast.Try) -> Errors:
        body = self._of_all(node.body)
        handled: Errors = frozenset()
        caught: list[type] = []
        for handler in node.handlers:
            kinds = [Exception] if handler.type is None else self._caught(handler.type)
            if not _raises_again(handler):
                caught += kinds
            handled |= self._of_all(handler.body)
        return _without(body, caught) | handled | self._of_all([*node.orelse, *node.finalbody])

    def _caught(self, node: ast.expr) -> list[type]:
        if isinstance(node, ast.Tuple):
            return [c for e in node.elts for c in self._caught(e)]
        name = _last_name(node)
        if name in ("Exception", "BaseException", "VdsmCinderError"):
            return [Exception]
        found = _error_class(name)
        return [] if found is None else [found]

    def _of_call(self, node: ast.Call) -> Errors:
        if _last_name(node.func) == "isinstance":
            return self._of(node.args[0])
        arguments = [*node.args, *(k.value for k in node.keywords)]
        if (_last_name(node.func) or "").lstrip("_") in DETACHED:
            # What the task is given is still made here.
            inner = [a for call in arguments if isinstance(call, ast.Call) for a in call.args]
            arguments = [a for a in inner if isinstance(a, ast.Call)]
        found = self._of_reference(node.func, called=True)
        for argument in arguments:
            found |= self._of(argument)
        return found

    def _of_reference(self, node: ast.expr, *, called: bool = False) -> Errors:
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return self._of(node)
        error = _error_class(_last_name(node))
        if isinstance(node, ast.Attribute) and _error_class(_last_name(node.value)):
            # Its code, say.
            return frozenset()
        if error is not None:
            return frozenset({error})
        found: Errors = frozenset()
        if isinstance(node, ast.Attribute):
            found |= self._of(node.value)
        function = self._function(node, called=called)
        if function is not None:
            found |= self._code.known(function, self._function_here)
        elif isinstance(node, ast.Name) and node.id not in self._types:
            where, name = self._code.resolve(self._module, node.id)
            if where is not None and name in where.values:
                found |= _named_in(where.values[name])
        return found

    def _function(self, node: ast.Name | ast.Attribute, *, called: bool = True) -> Function | None:
        if isinstance(node, ast.Name):
            if node.id in self._types:
                return None
            where, name = self._code.resolve(self._module, node.id)
            return None if where is None or name is None else self._in_module(where, name)
        if isinstance(node.value, ast.Name) and node.value.id not in self._types:
            where, name = self._code.resolve(self._module, node.value.id)
            if where is not None and name is None:
                return self._in_module(where, node.attr)
            cls = self._code.class_of(self._module, node.value.id)
        else:
            kind = self._kind_of(node.value)
            cls = kind if isinstance(kind, Class) else None
            if kind is None and called:
                cls = self._code.only_method(node.attr)
        return None if cls is None else self._code.method(cls, node.attr)

    def _in_module(self, where: Module, name: str) -> Function | None:
        if name in where.functions:
            return Function(where.name, None, name)
        cls = where.classes.get(name)
        if cls is None:
            return None
        makes = self._code.method(cls, "__post_init__") or self._code.method(cls, "__init__")
        return makes

    # Types

    def _kind(  # noqa: PLR0911 - as above
        self, annotation: ast.AST | None, module: Module | None = None
    ) -> Kind:
        module = module or self._module
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if isinstance(annotation, ast.BinOp):
            return self._kind(annotation.left, module) or self._kind(annotation.right, module)
        if isinstance(annotation, ast.Name):
            return self._code.class_of(module, annotation.id)
        if isinstance(annotation, ast.Attribute):
            if isinstance(annotation.value, ast.Name):
                where, name = self._code.resolve(module, annotation.value.id)
                if where is not None and name is None:
                    return where.classes.get(annotation.attr)
            owner = self._kind(annotation.value, module)
            return self._attribute(owner, annotation.attr) if isinstance(owner, Class) else None
        if isinstance(annotation, ast.Subscript):
            name, inner = _last_name(annotation.value), annotation.slice
            if name == "Optional":
                return self._kind(inner, module)
            if isinstance(inner, ast.Tuple):
                inner = inner.elts[-1] if name in ("dict", "Mapping") else inner.elts[0]
            return Listed(self._kind(inner, module))
        return None

    def _attribute(self, cls: Class, name: str) -> Kind:
        if name in cls.attributes:
            return self._kind(cls.attributes[name], cls.module)
        for base in cls.bases:
            parent = isinstance(base, ast.Name) and self._code.class_of(cls.module, base.id)
            if parent:
                return self._attribute(parent, name)
        return None

    def _kind_of(self, node: ast.AST) -> Kind:  # noqa: PLR0911 - as above
        """The type of an expression, as far as annotations tell it."""
        if isinstance(node, ast.Await):
            return self._kind_of(node.value)
        if isinstance(node, ast.Name):
            return self._types.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._kind_of(node.value)
            return self._attribute(owner, node.attr) if isinstance(owner, Class) else None
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            cls = self._code.class_of(self._module, _last_name(node.func) or "")
            if isinstance(node.func, ast.Name) and cls is not None:
                return cls
            function = self._function(node.func)
            if function is not None:
                returns = getattr(self._code.definition(function), "returns", None)
                return self._kind(returns, self._code.modules[function.module])
        if isinstance(node, ast.Subscript):
            kind = self._kind_of(node.value)
            return kind.element if isinstance(kind, Listed) else None
        return None


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What may raise in a node; annotations and the classes that are caught do not."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _raises_again(handler: ast.ExceptHandler) -> bool:
    raised = [n for n in ast.walk(handler) if isinstance(n, ast.Raise)]
    names = [n.exc.id if isinstance(n.exc, ast.Name) else "" for n in raised]
    return any(n.exc is None for n in raised) or (handler.name or "-") in names


def _without(found: Errors, caught: list[type]) -> Errors:
    return frozenset(e for e in found if not issubclass(e, tuple(caught)))


def _last_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _named_in(node: ast.AST) -> Errors:
    found = (_error_class(_last_name(n)) for n in ast.walk(node))
    return frozenset(e for e in found if e is not None)


@functools.cache
def _error_class(name: str | None) -> type[VdsmCinderError] | None:
    def below(cls: type) -> Iterator[type]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    if name == VdsmCinderError.__name__:
        return None
    return next((c for c in below(errors.VdsmCinderError) if c.__name__ == name), None)
