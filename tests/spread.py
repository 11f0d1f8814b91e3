# SPDX-License-Identifier: GPL-2.0-or-later
"""Spreads functional tests over labs that run side by side: which tests stay together, which begin.

For pytest-xdist, with a worker for each lab.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

# The ways in which test_systemd.py has the daemon installed, each on a host of its own.
INSTALLED = re.compile(r"test_systemd\.py::.*\[(rpm|make)\b")
# These go first: they start daemons where the functional tests have one that all of them share.
ALONE = "tests/faults/"
# What takes longest, in seconds with two labs on two processors. It need not be exact.
LONG_S = {
    "tests/functional/test_systemd.py rpm": 180,
    "tests/functional/test_systemd.py make": 65,
    "tests/functional/test_power.py": 80,
    "tests/functional/test_full_pool.py": 70,
    "tests/functional/test_lab.py": 70,
    "tests/functional/test_vms.py": 65,
    "tests/functional/test_ceph_rights.py": 60,
    "tests/functional/test_storage.py": 60,
    "tests/functional/test_secret_leak.py": 50,
    "tests/functional/test_migration.py": 50,
    "tests/functional/test_preflight.py": 40,
    "tests/functional/test_recovery.py": 30,
}


def together(nodeid: str) -> str:
    """The name of those tests that one worker runs: a module, or what shares a host in it."""
    installed = INSTALLED.search(nodeid)
    module = nodeid.partition("::")[0]
    return f"{module} {installed[1]}" if installed else module


def order(nodeid: str) -> tuple[bool, int]:
    """Sorts tests so that the long ones come early: in the end no worker has much left to do."""
    return not nodeid.startswith(ALONE), -LONG_S.get(together(nodeid), 0)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a worker that has nothing left the next tests that stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)
