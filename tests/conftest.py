# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for all tests."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import Any

import hypothesis
import pytest

from lab import several
from lab.running import Lab
from tests import spread
from tests.again import pytest_fixture_setup  # noqa: F401  a hook

# A shell has what it starts in the background ignore Ctrl-C, and nohup the hang-up; what tests
# start would inherit that, and tests that send these signals would wait for ever.
for number, how in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, how)

# The same examples every time, unless told otherwise: HYPOTHESIS_PROFILE=random.
hypothesis.settings.register_profile("gate", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For -n auto: a worker for each of several labs, and none for a single one."""
    return len(several.directories())


def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Put each worker into the place of the engine of a lab of its own."""
    for spec, directory in zip(specs, several.directories()):
        spec.env["VDSM_CINDER_LAB_DIR"] = str(directory)
        spec.python = shlex.join(Lab.attach(directory).engine_command([sys.executable]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> spread.Scheduling | None:
    """Labs get modules as a whole; without them it is as --dist says."""
    return spread.Scheduling(config, log) if several.directories() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: spread.order(item.nodeid))
