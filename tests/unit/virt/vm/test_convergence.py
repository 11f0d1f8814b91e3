# SPDX-License-Identifier: GPL-2.0-or-later
"""Convergence schedules: how they are read, and what they say to do when."""

from __future__ import annotations

from typing import Any

import pytest

from vdsmcinder.errors import InvalidParameter, MissingParameter
from vdsmcinder.fields import Fields
from vdsmcinder.rpc.requests.migration import read_schedule
from vdsmcinder.virt.vm.convergence import Action, Convergence, Deed, Schedule


def schedule(init: list[Any] | None = None, stalling: list[Any] | None = None) -> Schedule:
    given = {"init": init or [], "stalling": stalling or []}
    return read_schedule(Fields({"convergenceSchedule": given}, "migration"), 500)


def action(name: str, *params: str) -> dict[str, Any]:
    return {"name": name, "params": list(params)}


def downtime(ms: int) -> Action:
    return Action(Deed.SET_DOWNTIME, ms)


def test_without_one_the_downtime_rises_to_the_configured() -> None:
    for given in ({}, {"convergenceSchedule": {"init": [], "stalling": []}}):
        plain = read_schedule(Fields(given, "migration"), 500)
        assert plain.init == (downtime(100),)
        steps = Convergence(plain)
        due = [action for pass_ in range(7) for action in steps.passed(pass_)]
        assert due == [downtime(ms) for ms in (200, 300, 400, 500)]
        assert not (plain.post_copy or plain.auto_converge)


def test_the_shortest_downtime_is_a_millisecond() -> None:
    assert Schedule.by_steps(1).init == (downtime(1),)


def test_an_init_that_says_so_wins() -> None:
    assert schedule([action("setDowntime", "100")]).init == (downtime(100),)
    assert schedule([action("autoConverge")]).init[0] == downtime(500)


def test_none_begins_with_its_end() -> None:
    with pytest.raises(InvalidParameter, match="expected init without abort"):
        schedule([action("abort")])


def test_each_step_waits_for_more_passes_than_its_limit() -> None:
    steps = Convergence(
        schedule(
            stalling=[
                {"limit": 1, "action": action("setDowntime", "150")},
                {"limit": 2, "action": action("setDowntime", "200")},
                {"limit": -1, "action": action("abort")},
            ]
        )
    )
    # QEMU counts its passes from where it likes.
    due = [steps.passed(iteration) for iteration in (7, 8, 9, 9, 10, 11, 12)]
    assert due == [[], [], [downtime(150)], [], [downtime(200)], [Action(Deed.ABORT)], []]


def test_post_copy_and_auto_converge_are_prepared_for() -> None:
    later = schedule(stalling=[{"limit": 3, "action": action("postcopy")}])
    assert later.post_copy
    assert schedule([action("autoConverge")]).auto_converge


@pytest.mark.parametrize(
    ("init", "field"),
    [
        (action("setDowntime"), r"convergenceSchedule\.init\[0\]\.params"),
        (
            action("setDowntime", "0"),
            r"params\[0\] is a string of 1 character; expected a whole number from 1",
        ),
        (
            action("hurry"),
            r"name is a string of 5 characters; expected one of setDowntime, autoConverge",
        ),
    ],
)
def test_what_does_not_fit_is_named(init: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameter, match=field):
        schedule([init])


def test_a_step_has_a_limit() -> None:
    with pytest.raises(MissingParameter, match=r"stalling\[0\]\.limit is missing"):
        schedule(stalling=[{"action": action("abort")}])
