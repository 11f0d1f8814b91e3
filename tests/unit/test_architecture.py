# SPDX-License-Identifier: GPL-2.0-or-later
"""Which part of the daemon knows which: imports go down only, as docs/contributing.md shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.pages import REPOSITORY

PACKAGE = REPOSITORY / "vdsmcinder"
# What each part may import of the others, beside what all may.
KNOWS = {
    "transport": {"rpc", "stomp"},
    "rpc": {"virt", "ceph", "host", "hypervisor"},
    "host": {"hypervisor"},
    "virt": {"ceph", "hypervisor"},
    "hypervisor": set(),
    "stomp": set(),
    "ceph": set(),
}
FOR_ALL = {
    "config",
    "errors",
    "fields",
    "logs",
    "system",
    "tls_errors",
    "fair_scheduling",
    "__version__",
}


def imported(part: str) -> Iterator[tuple[str, str]]:
    """Each file of a part, and what it imports of the package, by the first name below it."""
    for path in sorted((PACKAGE / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
                names = [f"{PACKAGE.name}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                package, _, below = name.partition(".")
                if package == PACKAGE.name and below:
                    yield str(path.relative_to(PACKAGE)), below.split(".")[0]


@pytest.mark.parametrize("part", KNOWS)
def test_imports_go_down_only(part: str) -> None:
    allowed = FOR_ALL | KNOWS[part] | {part}
    assert [(file, name) for file, name in imported(part) if name not in allowed] == []


def test_what_all_know_knows_nothing_above() -> None:
    for name in FOR_ALL - {"__version__", "system"}:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
                assert node.module in {f"{PACKAGE.name}.errors", PACKAGE.name}, name
