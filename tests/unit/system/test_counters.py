# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes and durations, as they are counted."""

from __future__ import annotations

import pytest

from vdsmcinder.system.counters import BOUNDS_S, OK, Tally


@pytest.mark.parametrize(
    ("took_s", "bucket"),
    [(0, 0), (0.0001, 0), (0.00010001, 1), (0.004, 5), (30, 13), (31, 14)],
)
def test_a_duration_goes_into_the_bucket_whose_bound_it_does_not_exceed(took_s, bucket):
    tally = Tally()
    tally.add(OK, round(took_s * 1e9))
    assert [i for i, n in enumerate(tally.buckets) if n] == [bucket]


def test_outcomes_and_the_total():
    tally = Tally()
    for outcome, took in ((OK, 5), ("75", 6), (OK, 7)):
        tally.add(outcome, took)
    assert tally.outcomes == {"ok": 2, "75": 1}
    assert tally.total_ns == 18
    assert sum(tally.buckets) == 3


def test_bounds_ascend():
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
