# SPDX-License-Identifier: GPL-2.0-or-later
"""How long failures make somebody wait: by the clock that is given, and nobody else for them."""

from __future__ import annotations

import pytest

from cinderengine.access import pauses
from cinderengine.access.pauses import Pauses

HERE, THERE = "192.0.2.1", "192.0.2.2"


def after(failures, user="a", address=HERE, now_s=0.0):
    known = Pauses(free_failures=3, longest_pause_s=60)
    for _ in range(failures):
        known.failed(user, address, now_s)
    return known


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (2, 0), (3, 1), (4, 2), (5, 4), (8, 32), (9, 60), (5000, 60)]
)
def test_some_are_free_and_then_each_doubles_the_pause(failures, wait_s):
    assert after(failures).wait_s("a", HERE, 0.0) == wait_s


def test_a_pause_ends_by_itself():
    assert after(5).wait_s("a", HERE, 1.5) == 2.5
    assert after(5).wait_s("a", HERE, 4.0) == 0


def test_it_is_for_the_user_from_everywhere_and_for_all_users_from_there():
    known = after(5)
    assert known.wait_s("a", THERE, 0.0) == 4
    assert known.wait_s("b", HERE, 0.0) == 4
    assert known.wait_s("b", THERE, 0.0) == 0


def test_others_do_not_shut_out_a_user_from_where_it_works():
    known = after(0)
    known.succeeded("a", THERE)
    for _ in range(9):
        known.failed("a", HERE, 0.0)
    assert known.wait_s("a", THERE, 0.0) == 0
    assert known.wait_s("a", HERE, 0.0) == 60


def test_a_success_there_does_not_free_those_who_guess_elsewhere():
    known = after(0)
    known.succeeded("a", THERE)
    for _ in range(5):
        known.failed("a", HERE, 0.0)
    known.succeeded("a", THERE)
    assert known.wait_s("a", HERE, 0.0) == 4


def test_a_success_ends_it():
    known = after(4)
    known.succeeded("a", HERE)
    assert known.wait_s("a", HERE, 0.0) == 0
    assert known.wait_s("b", HERE, 0.0) == 0


def test_what_was_long_ago_is_forgotten():
    known = after(8)
    known.failed("a", HERE, pauses.FORGOTTEN_AFTER_S + 1)
    assert known.wait_s("a", HERE, pauses.FORGOTTEN_AFTER_S + 1) == 0


def test_the_addresses_of_one_customer_are_one():
    known = after(5, address="2001:db8:1:2::1")
    assert known.wait_s("b", "2001:db8:1:2:ffff::9", 0.0) == 4
    assert known.wait_s("b", "2001:db8:1:3::1", 0.0) == 0
    assert after(5, address="::ffff:192.0.2.1").wait_s("b", HERE, 0.0) == 4
    assert after(5, address="fe80::1%eth0").wait_s("b", "fe80::2%eth0", 0.0) == 4


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(pauses, "MOST_REMEMBERED", 10)
    known = after(0)
    for i in range(100):
        known.failed(f"u{i}", f"192.0.2.{i}", 0.0)
        known.succeeded(f"v{i}", HERE)
    assert len(known._failures) == len(known._at_home) == 10
