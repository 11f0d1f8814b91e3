# SPDX-License-Identifier: GPL-2.0-or-later
"""The states of a host: the table whole, and what is done meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from cinderengine.hosts import state
from cinderengine.hosts.state import (
    Activated,
    Checked,
    Closed,
    Deactivated,
    Dial,
    Emptied,
    HangUp,
    HostMachine,
    Joined,
    Look,
    Opened,
    Tell,
)
from cinderengine.model.hosts import HostStatus as S

LACKS = "host h has no librbd; install it"
GRACE_S = 60.0


def machine(status: S, *, stands: bool = False) -> HostMachine:
    """A host in that state; stands: with a session."""
    made = HostMachine(status, grace_s=GRACE_S, chance=lambda: 1.0)
    made.status = status
    if stands:
        made.take(Opened())
    return made


def lost(at_s: float = 0.0) -> Closed:
    return Closed("it is away", at_s)


def refused(at_s: float = 0.0) -> Closed:
    return Closed("it is of another authority", at_s, refused=True)


# What a host of each state does that has a session, when this happens. What is left out: nothing.
WITH_SESSION: Mapping[S, Mapping[state.Happening, S]] = {
    S.CONNECTING: {
        Joined(): S.INSTALLING,
        Checked(""): S.UP,
        Checked(LACKS): S.NON_OPERATIONAL,
        Deactivated(): S.PREPARING_FOR_MAINTENANCE,
        refused(): S.NON_OPERATIONAL,
    },
    S.INSTALLING: {
        Checked(""): S.UP,
        Checked(LACKS): S.NON_OPERATIONAL,
        Activated(): S.CONNECTING,
        Deactivated(): S.MAINTENANCE,
    },
    S.UP: {
        Checked(LACKS): S.NON_OPERATIONAL,
        lost(): S.CONNECTING,
        Deactivated(): S.PREPARING_FOR_MAINTENANCE,
    },
    S.NON_OPERATIONAL: {
        Joined(): S.INSTALLING,
        Checked(""): S.UP,
        lost(): S.CONNECTING,
        Activated(): S.CONNECTING,
        Deactivated(): S.PREPARING_FOR_MAINTENANCE,
    },
    S.NON_RESPONSIVE: {
        Joined(): S.INSTALLING,
        Checked(""): S.UP,
        Checked(LACKS): S.NON_OPERATIONAL,
        Activated(): S.CONNECTING,
        Deactivated(): S.MAINTENANCE,
        refused(): S.NON_OPERATIONAL,
    },
    S.PREPARING_FOR_MAINTENANCE: {
        Emptied(""): S.MAINTENANCE,
        Activated(): S.CONNECTING,
    },
    S.PENDING_APPROVAL: {Joined(): S.INSTALLING},
    S.MAINTENANCE: {Activated(): S.CONNECTING},
}
HAPPENINGS = (
    *(Joined(), Activated(), Deactivated(), lost(), refused()),
    *(Checked(""), Checked(LACKS), Emptied(""), Emptied("one VM runs")),
)


@pytest.mark.parametrize(
    ("status", "happened"), list(itertools.product(S, HAPPENINGS)), ids=lambda one: str(one)[:40]
)
def test_what_happens_leads_where_the_table_says(status: S, happened: state.Happening) -> None:
    host = machine(status, stands=status not in state.AT_REST)
    host.take(happened)
    assert host.status == WITH_SESSION[status].get(happened, status)


def test_every_state_has_its_row() -> None:
    assert set(state.NEXT) == set(S) == set(WITH_SESSION)


@pytest.mark.parametrize("status", [S.PENDING_APPROVAL, S.MAINTENANCE])
def test_at_rest_nobody_is_called(status: S) -> None:
    assert HostMachine(status).begin() == []


def test_what_was_up_is_connected_before_it_counts_as_up() -> None:
    assert HostMachine(S.UP, chance=lambda: 0.0).begin() == [Tell(S.CONNECTING, ""), Dial(0.0)]


@pytest.mark.parametrize("status", [S.NON_OPERATIONAL, S.NON_RESPONSIVE, S.INSTALLING])
def test_what_was_not_up_keeps_its_reason_until_more_is_known(status: S) -> None:
    host = HostMachine(status, "as it was", chance=lambda: 0.0)
    assert host.begin() == [Dial(0.0)]
    assert (host.status, host.reason) == (status, "as it was")


def test_each_status_is_told_once() -> None:
    host = machine(S.CONNECTING, stands=True)
    assert host.take(Checked(LACKS)) == [Tell(S.NON_OPERATIONAL, LACKS)]
    assert host.take(Checked(LACKS)) == []
    assert host.take(Checked("something else")) == [Tell(S.NON_OPERATIONAL, "something else")]
    assert host.take(Checked("")) == [Tell(S.UP, "")]
    assert host.take(Checked("")) == []


def test_pauses_grow_to_the_longest_and_begin_anew_with_a_session() -> None:
    host = machine(S.CONNECTING)
    pauses = [dial.after_s for _ in range(8) for dial in host.take(lost()) if type(dial) is Dial]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    assert host.take(Opened()) == [Look()]
    assert Dial(0.5) in host.take(lost())


def test_pauses_are_random_parts_of_themselves() -> None:
    host = HostMachine(S.CONNECTING, chance=iter([0.25, 0.5]).__next__)
    assert host.begin() == [Dial(0.125)]
    assert Dial(0.5) in host.take(lost())


def test_a_host_that_stays_away_is_told_of_after_the_grace_and_dialled_on() -> None:
    host = machine(S.UP, stands=True)
    assert Tell(S.CONNECTING, "it is away") in host.take(lost(100.0))
    host.take(lost(159.9))
    assert host.status is S.CONNECTING
    actions = host.take(lost(160.0))
    assert Tell(S.NON_RESPONSIVE, "it is away") in actions
    assert any(isinstance(action, Dial) for action in actions)


def test_a_session_in_between_ends_the_silence() -> None:
    host = machine(S.CONNECTING)
    host.take(lost(0.0))
    host.take(Opened())
    host.take(Checked(""))
    host.take(lost(100.0))
    assert host.status is S.CONNECTING


def test_a_host_that_is_refused_is_dialled_on_and_its_reason_is_that() -> None:
    host = machine(S.CONNECTING)
    actions = host.take(refused())
    assert actions == [Tell(S.NON_OPERATIONAL, "it is of another authority"), Dial(0.5)]
    host.take(Closed("it cannot be reached", 1.0))
    assert (host.status, host.reason) == (S.NON_OPERATIONAL, "it is of another authority")


def test_a_host_that_has_just_joined_may_show_its_old_certificate_for_the_grace() -> None:
    host = machine(S.INSTALLING)
    why = "it is of another authority"
    assert host.take(refused(0.0))[0] == Tell(S.INSTALLING, why)
    assert [type(action) for action in host.take(refused(59.0))] == [Dial]
    assert host.take(refused(60.0))[0] == Tell(S.NON_OPERATIONAL, why)


def test_maintenance_takes_the_keys_first_and_then_hangs_up() -> None:
    host = machine(S.UP, stands=True)
    assert host.take(Deactivated()) == [Tell(S.PREPARING_FOR_MAINTENANCE, ""), Look()]
    assert host.take(Emptied("a VM runs")) == [Tell(S.PREPARING_FOR_MAINTENANCE, "a VM runs")]
    assert host.take(Emptied("")) == [Tell(S.MAINTENANCE, ""), HangUp()]
    assert host.take(lost()) == []


def test_a_host_that_is_not_there_keeps_its_keys_in_maintenance_and_that_is_told() -> None:
    host = machine(S.NON_RESPONSIVE)
    assert host.take(Deactivated()) == [Tell(S.MAINTENANCE, state.KEEPS_KEYS), HangUp()]
    assert host.take(Activated())[0] == Tell(S.CONNECTING, "")


def test_a_host_that_goes_away_on_the_way_to_maintenance_is_waited_for() -> None:
    host = machine(S.PREPARING_FOR_MAINTENANCE, stands=True)
    assert Dial(0.5) in host.take(lost(0.0))
    assert host.status is S.PREPARING_FOR_MAINTENANCE
    assert host.take(Opened()) == [Tell(S.PREPARING_FOR_MAINTENANCE, "it is away"), Look()][1:]


def test_activation_of_what_has_a_session_looks_and_of_what_has_none_dials_at_once() -> None:
    host = machine(S.NON_OPERATIONAL, stands=True)
    assert host.take(Activated()) == [Tell(S.CONNECTING, ""), Look()]
    host = machine(S.NON_RESPONSIVE)
    for _ in range(9):
        host.take(lost())
    assert Dial(0.5) in host.take(Activated())


def test_a_host_that_joins_anew_is_dialled_with_its_new_certificates() -> None:
    host = machine(S.NON_OPERATIONAL, stands=True)
    assert host.take(Joined()) == [Tell(S.INSTALLING, ""), HangUp(), Dial(0.5)]
