# SPDX-License-Identifier: GPL-2.0-or-later
"""A shared fixture that fails for one test is there for the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFTEST = "from tests.again import pytest_fixture_setup\n"
TESTS = """\
import pytest, pytest_asyncio

made = []

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vm():
    made.append(1)
    assert len(made) > 1, "it did not come up"
    yield len(made)

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", range(3))
async def test_uses(vm, number):
    assert vm == 2
"""


def test_one_failure_fails_one_test(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_shared.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {REPOSITORY}\nasyncio_default_fixture_loop_scope = function\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed, 1 error" in done.stdout, done.stdout
