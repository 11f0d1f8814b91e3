# SPDX-License-Identifier: GPL-2.0-or-later
"""The short form of the suite of faults, for every change; `make faults` runs all of it.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/faults/test_short.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab.running import Lab
from tests.faults.run import Stage, run_row
from tests.faults.table import ROWS, Row

pytestmark = pytest.mark.asyncio(loop_scope="module")
# A machine that runs tests may be several times slower than one that runs VMs.
PATIENCE = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with Stage(Lab.attach()) as stage:
        yield stage


@pytest.mark.parametrize("row", [row for row in ROWS if row.short], ids=lambda row: row.name)
async def test_nothing_is_lost(stage: Stage, row: Row) -> None:
    outcome = await run_row(await stage.scene_for(row), row, PATIENCE)
    stage.left(outcome)
    assert outcome.broken == []
