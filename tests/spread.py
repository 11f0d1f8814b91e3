# SPDX-License-Identifier: GPL-2.0-or-later
"""Spreads functional tests over labs that run side by side: which tests stay together, which begin.

tests/conftest.py hands it to pytest-xdist; `make functional` has it start two workers.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

# The ways in which test_systemd.py has the daemon installed, each on a host of its own.
INSTALLED = re.compile(r"test_systemd\.py::.*\[(rpm|make)\b")
# How long what takes longest takes, in seconds.
LONG_S = {
    "tests/functional/test_systemd.py rpm": 120,
    "tests/functional/test_systemd.py make": 110,
}


def together(nodeid: str) -> str:
    """The name of those tests that one worker runs: a module, or what shares a host in it."""
    installed = INSTALLED.search(nodeid)
    module = nodeid.partition("::")[0]
    return f"{module} {installed[1]}" if installed else module


def order(nodeid: str) -> int:
    """Sorts tests so that the long ones come first: in the end no worker has much left to do."""
    return -LONG_S.get(together(nodeid), 0)


class Scheduling(LoadScopeScheduling):
    """Gives a worker that has nothing left the next tests that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)
