# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM and its parts: nobody sets their fields from outside, and what waits for a guest ends."""

from __future__ import annotations

import ast
import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pages import REPOSITORY
from vdsmcinder.errors import UnsupportedOperation, VMIsDown
from vdsmcinder.virt.vm.parts.unplugs import Unplugs

VIRT = REPOSITORY / "vdsmcinder" / "virt"
OF_A_VM = [VIRT / "vm" / "vm.py", *sorted((VIRT / "vm" / "parts").glob("*.py"))]


def set_in(path: Path) -> Iterator[tuple[str, str]]:
    """What a file assigns to attributes: of what, and the attribute's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield ast.unparse(node.value), node.attr


def test_nobody_else_sets_a_field_of_a_vm() -> None:
    fields = {name for path in OF_A_VM for whose, name in set_in(path) if whose == "self"}
    assert {"status", "migration", "adrift", "balloon_target_kib", "held", "late"} <= fields
    others = [
        (str(path.relative_to(VIRT)), f"{whose}.{name}")
        for path in (REPOSITORY / "vdsmcinder").rglob("*.py")
        for whose, name in set_in(path)
        if whose not in ("self", "cls") and name in fields and "vm" in whose.split(".")
    ]
    assert others == []


async def test_the_guest_lets_go_or_refuses_or_is_gone() -> None:
    unplugs = Unplugs()
    with unplugs.expect("a") as removed:
        assert unplugs.removed("a") and not unplugs.removed("b")
        await removed
    with unplugs.expect("a") as removed:
        unplugs.kept("a")
        with pytest.raises(UnsupportedOperation, match="refused"):
            await removed
    with unplugs.expect("a") as removed:
        unplugs.over("VM 7 ended meanwhile")
        with pytest.raises(VMIsDown):
            await removed
    assert not unplugs.removed("a")


async def test_an_answer_for_which_nobody_waits_any_more_is_no_error() -> None:
    """The VM ends while libvirt refuses the unplug, or the caller is gone."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    unplugs = Unplugs()
    with pytest.raises(OSError, match="not now"), unplugs.expect("a"):
        unplugs.over("VM 7 ended meanwhile")
        raise OSError("not now")
    with pytest.raises(asyncio.CancelledError), unplugs.expect("a"):
        raise asyncio.CancelledError
    unplugs.kept("a")
    gc.collect()
    await asyncio.sleep(0)
    assert unheard == []
