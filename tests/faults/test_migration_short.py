# SPDX-License-Identifier: GPL-2.0-or-later
"""The short form of the faults while a VM migrates, for every change; `make migrations` runs all.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/faults/test_migration_short.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab.lifecycle import USERFAULTFD, has_post_copy
from lab.running import Lab
from tests.faults.migration import ROWS, Row
from tests.faults.migrations import Tour, run_row

pytestmark = pytest.mark.asyncio(loop_scope="module")
# A machine that runs tests may be several times slower than one that runs VMs.
PATIENCE = 3.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tour() -> AsyncIterator[Tour]:
    async with Tour(Lab.attach()) as tour:
        yield tour


@pytest.mark.parametrize("row", [row for row in ROWS if row.short], ids=lambda row: row.name)
async def test_the_vm_runs_on_one_host(tour: Tour, row: Row) -> None:
    if row.name.endswith("-post-copy") and not has_post_copy():
        pytest.skip(f"{USERFAULTFD} is 0, and this machine does not let the lab set it")
    outcome = await run_row(await tour.road_for(row), row, PATIENCE)
    assert outcome.broken == []
