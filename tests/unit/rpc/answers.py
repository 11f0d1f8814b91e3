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

from tests.unit.rpc.source import Class, Function, Kind, Listed, Module, Source, last_name
from vdsmcinder import errors
from vdsmcinder.errors import VdsmCinderError

# Their arguments go on by themselves: whoever called them hears nothing of it.
DETACHED = frozenset({"spawn", "create_task", "call_later", "call_soon", "set_exception"})

Errors = frozenset  # of type[VdsmCinderError]


class Code:
    """The package's code. errors_of() tells which errors a function may raise."""

    def __init__(self, instead: Mapping[Function, Errors]) -> None:
        """instead: what functions raise that are not walked."""
        self._source = Source()
        self._instead = instead
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
                found = _Walk(self, self._source, function).errors()
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


class _Walk:
    """One function, statement by statement."""

    def __init__(self, code: Code, source: Source, function: Function) -> None:
        self._code = code
        self._source = source
        self._module = source.modules[function.module]
        self._class = self._module.classes.get(function.owner or "")
        self._node = source.definition(function)
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
            if isinstance(call, ast.Call) and last_name(call.func) == "suppress":
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
        name = last_name(node)
        if name in ("Exception", "BaseException", "VdsmCinderError"):
            return [Exception]
        found = _error_class(name)
        return [] if found is None else [found]

    def _of_call(self, node: ast.Call) -> Errors:
        if last_name(node.func) == "isinstance":
            return self._of(node.args[0])
        arguments = [*node.args, *(k.value for k in node.keywords)]
        if (last_name(node.func) or "").lstrip("_") in DETACHED:
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
        error = _error_class(last_name(node))
        if isinstance(node, ast.Attribute) and _error_class(last_name(node.value)):
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
            where, name = self._source.resolve(self._module, node.id)
            if where is not None and name in where.values:
                found |= _named_in(where.values[name])
        return found

    def _function(self, node: ast.Name | ast.Attribute, *, called: bool = True) -> Function | None:
        if isinstance(node, ast.Name):
            if node.id in self._types:
                return None
            where, name = self._source.resolve(self._module, node.id)
            return None if where is None or name is None else self._in_module(where, name)
        if isinstance(node.value, ast.Name) and node.value.id not in self._types:
            where, name = self._source.resolve(self._module, node.value.id)
            if where is not None and name is None:
                return self._in_module(where, node.attr)
            cls = self._source.class_of(self._module, node.value.id)
        else:
            kind = self._kind_of(node.value)
            cls = kind if isinstance(kind, Class) else None
            if kind is None and called:
                cls = self._source.only_method(node.attr)
        return None if cls is None else self._source.method(cls, node.attr)

    def _in_module(self, where: Module, name: str) -> Function | None:
        if name in where.functions:
            return Function(where.name, None, name)
        cls = where.classes.get(name)
        if cls is None:
            return None
        makes = self._source.method(cls, "__post_init__") or self._source.method(cls, "__init__")
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
            return self._source.class_of(module, annotation.id)
        if isinstance(annotation, ast.Attribute):
            if isinstance(annotation.value, ast.Name):
                where, name = self._source.resolve(module, annotation.value.id)
                if where is not None and name is None:
                    return where.classes.get(annotation.attr)
            owner = self._kind(annotation.value, module)
            return self._attribute(owner, annotation.attr) if isinstance(owner, Class) else None
        if isinstance(annotation, ast.Subscript):
            name, inner = last_name(annotation.value), annotation.slice
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
            parent = isinstance(base, ast.Name) and self._source.class_of(cls.module, base.id)
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
            cls = self._source.class_of(self._module, last_name(node.func) or "")
            if isinstance(node.func, ast.Name) and cls is not None:
                return cls
            function = self._function(node.func)
            if function is not None:
                returns = getattr(self._source.definition(function), "returns", None)
                return self._kind(returns, self._source.modules[function.module])
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


def _named_in(node: ast.AST) -> Errors:
    found = (_error_class(last_name(n)) for n in ast.walk(node))
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
