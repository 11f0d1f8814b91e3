# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab, for all functional tests of the engine; they run inside its network.

`make functional`, or, for one test while a lab runs,
`python -m lab exec -- .venv/bin/pytest -n 0 tests/engine/functional/...`.
"""

from __future__ import annotations

import pytest

from lab.running import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab.attach()
