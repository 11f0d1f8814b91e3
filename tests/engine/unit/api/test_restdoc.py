# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/rest.md: it says what the tables say, and what it shows works."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

from cinderengine.api.resources import restdoc
from tests.pages import REPOSITORY

PAGE = REPOSITORY / "docs/rest.md"
WITHIN_S = 60


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_page_is_current() -> None:
    stale = "docs/rest.md is stale; run make rest"
    assert PAGE.read_text(encoding="utf-8") == restdoc.page(), stale


async def test_its_examples_work(engine, capsys) -> None:
    for block in blocks("sh"):
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            block,
            env={**os.environ, "ENGINE": engine.url, "AUTH": "admin@internal:pw"},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(WITHIN_S):
            told, _ = await process.communicate()
        assert process.returncode == 0, block
        assert told
    names = {"ENGINE": engine.url, "USER": "admin@internal", "PASSWORD": "pw", "CA_FILE": None}
    for block in blocks("python"):
        await asyncio.to_thread(exec, block, names)
    assert capsys.readouterr().out.split()[1] in {"locked", "ok"}
    assert {volume.name for volume in engine.volumes.kept.values()} == {"first", "second"}


@pytest.mark.parametrize("kind", ["sh", "python"])
def test_there_are_examples(kind: str) -> None:
    assert blocks(kind)
