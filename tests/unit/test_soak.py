# SPDX-License-Identifier: GPL-2.0-or-later
"""The short form of the soak, which `make soak` runs in full; that the faults know all verbs."""

from __future__ import annotations

import io

from lab.steps import Steps
from tests.faults.kill_during_verb import DEEDS
from tests.faults.soak import Length, on_test_driver
from vdsmcinder.rpc.schema import schema

SHORT = Length(plugs=200, creates=40, first=20)


async def test_nothing_is_left_of_vms_and_disks_that_came_and_went():
    courses = await on_test_driver(SHORT, Steps(io.StringIO()))
    assert [course.pairs for course in courses] == [SHORT.creates, SHORT.plugs]
    assert {course.what: course.grown for course in courses if course.grown} == {}


def test_the_daemon_is_killed_during_each_verb_that_changes_something():
    verbs = schema.load().verbs.values()
    # Those of migration, which need a second host, have rows of their own.
    changing = {verb.name for verb in verbs if verb.changes and "igrat" not in verb.name}
    # Nor those after which nothing is to be found: a claim of an image lapses.
    changing -= {"Host.setLogLevel", "Host.checkDisk"}
    changing -= {"Host.setMOMPolicyParameters", "Host.setSafeNetworkConfig"}
    # Nor those of memory, which need a VM that was made for it: test_resources.py.
    changing -= {"VM.hotplugMemory", "VM.hotunplugMemory"}
    assert {deed.verb for deed in DEEDS} == changing
