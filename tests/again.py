# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests share, such as a module's VM, and could not be made is made anew for the next test.

pytest would remember the failure, and all tests of the module would fail with the first.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Forget that a fixture failed, so that whoever wants it next has it set up."""
    try:
        return (yield)
    except Exception:
        fixturedef.finish(request)  # type: ignore[arg-type]
        raise
