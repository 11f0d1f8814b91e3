# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine of an outgoing migration: its table, cell by cell, and whatever may happen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmcinder.errors import (
    MigrationFailed,
    NoSuchVM,
    PeerUnreachable,
    Recovering,
    VMExists,
)
from vdsmcinder.virt.migration.common import backoff
from vdsmcinder.virt.migration.common.table import Due, IllegalEvent, Note, Wake
from vdsmcinder.virt.migration.outgoing import (
    copy_progress,
    last_word,
    machine,
    reasons,
    recovery,
    states,
    transitions,
)
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.last_word import LastWord
from vdsmcinder.virt.migration.outgoing.machine import TABLE, OutgoingMachine
from vdsmcinder.virt.migration.outgoing.states import Here, Plan, State
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.convergence import Action, Deed, Schedule, Stalling
from vdsmcinder.virt.vm.migration import Handover, Phase, Progress, Verdict

RUN, DROP = Verdict.RUN, Verdict.DROP
BUSY = ev.Busy("two come already")
THERE = VMExists("it runs there")
NOT_THERE = NoSuchVM("it did not come")
UNREACHED = ev.Unreached(PeerUnreachable("no answer"))
SOMEHOW = ev.Objected(PeerUnreachable("that host cannot reach libvirt"))
COPYING = Progress(percent=3, remaining=900, transferred=30)
SCHEDULE = Schedule((Action(Deed.SET_DOWNTIME, 100),), (Stalling(0, Action(Deed.ABORT)),))
# One event of each kind.
EVENTS: tuple[Any, ...] = (
    ev.Turn(),
    ev.Found(),
    ev.Reached(),
    ev.Accepted(encrypted=True),
    BUSY,
    ev.Refused(MigrationFailed("no")),
    ev.Marked(),
    ev.NotMarked(MigrationFailed("no")),
    ev.Passed(3),
    ev.Figures(COPYING),
    ev.LimitAsked(8),
    ev.LimitSet(),
    ev.LimitNotSet("no"),
    ev.StoppedForHandover(),
    ev.RunsThere(),
    ev.Stopped(lifecycle.PAUSED_BY_US),
    ev.Ended(lifecycle.GUEST_SHUT_DOWN),
    ev.QemuGone(),
    ev.Stirred(),
    ev.CallEnded(MigrationFailed("it broke off"), "it broke off"),
    ev.Looked(Here.BUSY, lifecycle.RUNNING),
    ev.Answered(5),
    ev.Objected(THERE),
    UNREACHED,
    ev.Suspended(),
    ev.Stays(lifecycle.RUNNING),
    ev.NotKnown("libvirt is gone"),
    ev.Destroyed(),
    ev.NotDestroyed("libvirt is gone"),
    ev.Cancelled(),
    ev.Doomed(),
    Due(),
)
IDLE = ev.Looked(Here.IDLE, lifecycle.RUNNING)
GONE = ev.Looked(Here.GONE, lifecycle.GUEST_SHUT_DOWN)
OFFERED = (ev.Turn(), ev.Reached())
COPIED = (*OFFERED, ev.Accepted(encrypted=False), ev.Marked())
# Events that lead to each state.
WAYS: dict[State, tuple[Handover, Sequence[Any]]] = {
    State.WAITING: (Handover.CONFIRMED, ()),
    State.OFFERED: (Handover.CONFIRMED, OFFERED),
    State.MARKING: (Handover.CONFIRMED, COPIED[:3]),
    State.CALLING_OFF: (Handover.CONFIRMED, (*OFFERED, ev.Cancelled())),
    State.COPYING: (Handover.CONFIRMED, COPIED),
    State.POST_COPY: (Handover.LIBVIRT, (*COPIED, ev.RunsThere())),
    State.BROKEN_OFF: (
        Handover.LIBVIRT,
        (*COPIED, ev.RunsThere(), ev.CallEnded(), ev.Looked(Here.BROKEN_OFF)),
    ),
    State.LETTING_RUN: (Handover.CONFIRMED, (*COPIED, ev.StoppedForHandover(), ev.QemuGone())),
    State.CLOSING: (
        Handover.CONFIRMED,
        (*COPIED, ev.StoppedForHandover(), ev.QemuGone(), ev.Answered(5)),
    ),
    State.FINDING_WHY: (Handover.CONFIRMED, (*COPIED, ev.QemuGone(), ev.Objected(NOT_THERE))),
    State.CHECKING: (
        Handover.CONFIRMED,
        (*COPIED, ev.StoppedForHandover(), ev.CallEnded(), IDLE),
    ),
    State.STAYING: (Handover.CONFIRMED, (*COPIED, ev.CallEnded(), IDLE)),
    State.SUSPENDING: (
        Handover.LIBVIRT,
        (*COPIED, ev.StoppedForHandover(), ev.CallEnded(), IDLE),
    ),
    State.CONTESTED: (
        Handover.LIBVIRT,
        (*COPIED, ev.StoppedForHandover(), ev.CallEnded(), IDLE, ev.Suspended()),
    ),
    State.RESUMING: (
        Handover.LIBVIRT,
        (*COPIED, ev.StoppedForHandover(), ev.CallEnded(), IDLE, ev.Suspended(), ev.Answered()),
    ),
    State.GIVING_UP: (
        Handover.CONFIRMED,
        (*COPIED, ev.StoppedForHandover(), ev.CallEnded(), IDLE, ev.Objected(THERE)),
    ),
    State.LOST: (
        Handover.LIBVIRT,
        (*COPIED, ev.RunsThere(), ev.CallEnded(), ev.Looked(Here.BROKEN_OFF), ev.Answered()),
    ),
    State.OVER: (
        Handover.CONFIRMED,
        (*COPIED, ev.CallEnded(), IDLE, ev.Stays(lifecycle.RUNNING)),
    ),
}


def new(handover: Handover = Handover.CONFIRMED) -> OutgoingMachine:
    plan = Plan("web-id", "web", "host2:54321", handover, SCHEDULE, 20.0, 1.0, 30.0)
    return OutgoingMachine(plan, 0.0)


def at(state: State) -> OutgoingMachine:
    handover, way = WAYS[state]
    going = new(handover)
    for event in way:
        going.receive(event, 0.0)
    assert going.state is state
    return going


def about(seconds: float) -> Any:
    """So many, as nearly as numbers with fractions can say it."""
    return pytest.approx(seconds)


def wanted(actions: Sequence[Any]) -> list[Any]:
    """Without what is only said to a log."""
    return [action for action in actions if not isinstance(action, Note)]


# The table


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_each_event_in_each_state(state: State) -> None:
    """It leads to where the table says, or is refused in words, and then changes nothing."""
    for event in EVENTS:
        going = at(state)
        cell = TABLE[state].get(type(event))
        if cell is None:
            before = vars(going).copy()
            with pytest.raises(IllegalEvent, match=f"cannot happen in state {state.name}"):
                going.receive(event, 1.0)
            assert vars(going) == before
        else:
            going.receive(event, 1.0)
            assert going.state in (state, *cell[1:]), event


def test_every_kind_of_event_is_in_these_tests() -> None:
    assert {type(event) for event in EVENTS} == {event for row in TABLE.values() for event in row}
    assert len(EVENTS) == len({type(event) for event in EVENTS})


def test_every_state_can_be_come_to_by_the_table() -> None:
    leads_to = {to for row in TABLE.values() for cell in row.values() for to in cell[1:]}
    assert leads_to == set(State)


def test_it_is_pure() -> None:
    for module in (
        machine,
        transitions,
        states,
        copy_progress,
        recovery,
        reasons,
        last_word,
        backoff,
        ev,
    ):
        source = inspect.getsource(module)
        for name in ("asyncio", "libvirt", "time", "threading"):
            assert f"import {name}\n" not in source


# What it wants done, and how it ends


@pytest.mark.parametrize(
    ("state", "event", "actions"),
    [
        (State.WAITING, ev.Turn(), [ev.Offer()]),
        (State.OFFERED, ev.Accepted(encrypted=True), [ev.Mark(encrypted=True)]),
        (State.OFFERED, BUSY, [ev.Answer(), Wake(1.0)]),
        (State.WAITING, ev.Stopped(lifecycle.PAUSED_BY_US), [ev.Stay()]),
        (State.OFFERED, ev.Stopped(lifecycle.PAUSED_BY_US), [ev.Stay(owes=ev.Owe(DROP))]),
        (State.MARKING, ev.Marked(), [ev.Answer(), ev.Watch(), ev.Copy(SCHEDULE.init)]),
        (State.COPYING, ev.StoppedForHandover(), [ev.WatchClosely()]),
        (State.COPYING, ev.QemuGone(), [ev.Say(RUN)]),
        (State.COPYING, ev.CallEnded(), [ev.Look()]),
        (State.COPYING, ev.Cancelled(), [ev.Abort()]),
        (State.COPYING, ev.Looked(None), [Wake(0.5)]),
        (State.COPYING, IDLE, [ev.Stay(owes=ev.Owe(DROP))]),
        (
            State.COPYING,
            ev.Looked(Here.INTERRUPTED, None),
            [ev.Stay(resume=True, owes=ev.Owe(DROP))],
        ),
        (State.POST_COPY, ev.Doomed(), []),
        (State.BROKEN_OFF, Due(), [ev.Say(DROP)]),
        (State.BROKEN_OFF, UNREACHED, [ev.Look()]),
        (State.BROKEN_OFF, ev.Objected(THERE), [ev.ResumeCopy(break_off=False), Wake(60.0)]),
        (State.BROKEN_OFF, ev.Answered(), [ev.DestroyHere()]),
        (State.LETTING_RUN, UNREACHED, [Wake(0.2)]),
        (State.LETTING_RUN, SOMEHOW, [Wake(0.2)]),
        (State.LETTING_RUN, Due(), [ev.Say(RUN)]),
        (State.LETTING_RUN, ev.Answered(5), [Wake(30.0)]),
        (State.LETTING_RUN, ev.Objected(NOT_THERE), [ev.Owe(DROP), ev.Look(), Wake(5.0)]),
        (State.LETTING_RUN, ev.Doomed(), [ev.Owe(DROP, may_run=True), ev.Look(), Wake(5.0)]),
        (State.CHECKING, ev.Answered(), [ev.Stay()]),
        (State.CHECKING, ev.Objected(THERE), [ev.DestroyHere()]),
        (State.CHECKING, UNREACHED, [Wake(0.2)]),
        (State.STAYING, ev.NotKnown("libvirt is gone"), [Wake(0.5)]),
        (State.SUSPENDING, ev.Suspended(), [ev.Say(DROP)]),
        (State.CONTESTED, UNREACHED, [Wake(0.2)]),
        (State.CONTESTED, ev.Answered(), [ev.Look()]),
        (State.CONTESTED, ev.Objected(THERE), [ev.DestroyHere()]),
        (State.RESUMING, IDLE, [ev.Stay(resume=True)]),
        (State.RESUMING, GONE, [ev.Look(), Wake(5.0)]),
        (State.GIVING_UP, ev.NotDestroyed("libvirt is gone"), [Wake(0.5)]),
        (State.GIVING_UP, ev.Doomed(), []),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_what_is_to_be_done(state: State, event: Any, actions: list[Any]) -> None:
    assert wanted(at(state).receive(event, 0.0)) == actions


def released(actions: Sequence[Any]) -> ev.Release:
    (release,) = [action for action in actions if isinstance(action, ev.Release)]
    return release


def test_it_arrives() -> None:
    going = at(State.COPYING)
    going.receive(ev.StoppedForHandover(), 10.0)
    going.receive(ev.QemuGone(), 10.2)
    going.receive(ev.Answered(running_ms=150), 10.4)
    actions = wanted(going.receive(ev.CallEnded(), 10.9))
    done = Progress(percent=100, downtime_ms=250)
    arrived = lifecycle.migrated_to("host2:54321")
    assert actions == [ev.Publish(done), ev.Left(10.9), ev.Release(arrived)]
    assert (going.failure, going.phase) == (None, Phase.OVER)


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([ev.CallEnded(), IDLE], "libvirt ended the migration and does not tell why"),
        ([ev.CallEnded(MigrationFailed("libvirt says: no"), "no"), IDLE], "libvirt says: no"),
        ([ev.Cancelled(), ev.CallEnded(MigrationFailed("no"), "no"), IDLE], "was cancelled"),
        ([ev.Passed(0), ev.Passed(1), ev.CallEnded(), IDLE], "its convergence schedule ended it"),
    ],
)
def test_why_it_stays(events: list[Any], reason: str) -> None:
    going = at(State.COPYING)
    for event in events:
        going.receive(event, 0.0)
    actions = wanted(going.receive(ev.Stays(lifecycle.RUNNING), 0.0))
    assert actions == [ev.Owe(DROP), ev.Release(lifecycle.RUNNING)]
    assert going.failure is not None
    assert reason in going.failure.message


def test_an_io_error_is_why_it_stays() -> None:
    going = at(State.STAYING)
    told = "QEMU paused it for an I/O error (EIO) on vda; migrate it again when"
    going.receive(ev.Stays(lifecycle.PAUSED_BY_IO_ERROR, told), 0.0)
    assert going.failure is not None
    assert told in going.failure.message


def test_one_that_ends_meanwhile_is_told_as_such() -> None:
    going = at(State.COPYING)
    for event in (ev.Ended(lifecycle.GUEST_SHUT_DOWN), ev.QemuGone(), ev.Objected(NOT_THERE)):
        going.receive(event, 0.0)
    release = released(going.receive(GONE, 0.0))
    assert release == ev.Release(lifecycle.GUEST_SHUT_DOWN, asked=True)
    assert going.failure is not None
    assert "it ended meanwhile: The guest shut itself down" in going.failure.message


def test_one_of_whose_end_libvirt_tells_nothing_is_lost_with_qemu() -> None:
    going = at(State.FINDING_WHY)
    assert wanted(going.receive(ev.Looked(Here.BUSY), 4.9)) == [Wake(about(0.1))]
    assert released(going.receive(Due(), 5.0)) == ev.Release(lifecycle.QEMU_LOST)
    assert going.failure is NOT_THERE


def test_what_is_lost_in_post_copy() -> None:
    going = at(State.POST_COPY)
    going.receive(ev.QemuGone(), 0.0)
    actions = wanted(going.receive(ev.Objected(NOT_THERE), 0.0))
    # The other host ends what ran there already, unless it is whole.
    assert actions[0] == ev.Owe(RUN, may_run=True)
    assert released(going.receive(GONE, 0.0)) == ev.Release(lifecycle.POSTCOPY_FAILED, asked=True)


def test_a_connection_that_is_dead_is_broken_off() -> None:
    going = at(State.BROKEN_OFF)
    going.receive(ev.Objected(THERE), 1.0)
    going.receive(ev.CallEnded(MigrationFailed("no"), "no"), 2.0)
    going.receive(ev.Looked(Here.BROKEN_OFF), 151.0)
    assert wanted(going.receive(ev.Objected(THERE), 151.0)) == [
        ev.ResumeCopy(break_off=True),
        Wake(60.0),
    ]


def test_one_that_is_cancelled_while_it_is_marked_stays() -> None:
    going = at(State.MARKING)
    assert going.receive(ev.Cancelled(), 0.0) == []
    assert wanted(going.receive(ev.Marked(), 0.0)) == [ev.Stay(owes=ev.Owe(DROP))]
    actions = wanted(going.receive(ev.Stays(lifecycle.RUNNING), 0.0))
    assert actions[:2] == [ev.Owe(DROP), ev.Release(lifecycle.RUNNING)]
    assert isinstance(actions[2], ev.Answer)
    assert actions[2].error is going.failure


# Progress


def test_one_that_does_not_come_nearer_is_ended() -> None:
    going, now_s, ended = at(State.COPYING), 0.0, []
    for remaining in (900, 500, 100, 900, 500, 100, 900, 500, 100):
        now_s += 5.0
        actions = going.receive(ev.Figures(Progress(remaining=remaining, transferred=1)), now_s)
        ended += [now_s for action in actions if action == ev.Abort()]
    # It was never less than at 15 s.
    assert ended == [35.0]
    going.receive(ev.CallEnded(), now_s)
    going.receive(IDLE, now_s)
    going.receive(ev.Stays(lifecycle.RUNNING), now_s)
    assert going.failure is not None
    assert "it had not come nearer for 20 s (option migration.stall" in going.failure.message


def test_one_that_comes_nearer_slowly_is_not() -> None:
    going = at(State.COPYING)
    for n in range(100):
        found = Progress(remaining=1000 - n, transferred=n)
        assert ev.Abort() not in going.receive(ev.Figures(found), 5.0 * n)


def test_progress_is_watched_when_a_limit_cannot_be_set() -> None:
    going = at(State.COPYING)
    going.receive(ev.LimitAsked(8), 0.0)
    assert going.receive(ev.Figures(COPYING), 1.0) == [ev.SetSpeed(8), ev.Publish(COPYING)]
    (note,) = going.receive(ev.LimitNotSet("QEMU refused"), 1.1)
    assert isinstance(note, Note)
    assert "could not be limited (QEMU refused)" in note.text
    assert going.receive(ev.Figures(COPYING), 2.0) == [ev.Publish(COPYING)]
    assert ev.Abort() in going.receive(ev.Figures(COPYING), 21.0)


def test_in_post_copy_nothing_is_ended() -> None:
    going = at(State.POST_COPY)
    actions = wanted(going.receive(ev.Figures(COPYING), 1000.0))
    assert [type(action) for action in actions] == [ev.Publish]
    assert actions[0].progress.post_copy
    assert wanted(going.receive(ev.Cancelled(), 1000.0)) == []


# Whatever happens

# What a state waits for.
AWAITED = (ev.Offer, ev.Mark, ev.Look, ev.Say, ev.Suspend, ev.Stay, ev.DestroyHere)


class Hosts:
    """The machine, what is under way for it, and what may be true of both hosts.

    dropped: the copy is gone for good; runs_there: the other host has let it run, or says so.
    """

    def __init__(self, handover: Handover) -> None:
        self.handover = handover
        self.going = new(handover)
        self.now_s = 0.0
        self.qemu_gone = self.dropped = self.runs_there = self.known_there = False
        self.asked_until_s: float | None = None
        self.call = False
        self.pending: list[Any] = []
        self.wake = False
        self.released: list[ev.Release] = []
        self.owed: list[ev.Owe] = []

    def tell(self, event: Any) -> None:
        self.now_s += 1.0
        state = self.going.state
        if isinstance(event, ev.QemuGone) or event == GONE:
            self.qemu_gone = True
        if isinstance(event, ev.Reached):
            self.known_there = True
        if isinstance(event, ev.CallEnded):
            self.call = False
        actions = self.going.receive(event, self.now_s)
        if self.going.state is not state:
            self.pending, self.wake = [], False
            if self.going.state is State.CHECKING:
                self.asked_until_s = self.now_s + 15.0
        for action in actions:
            self._take(action)

    def _take(self, action: Any) -> None:
        if isinstance(action, (ev.Copy, ev.ResumeCopy)):
            self.call = True
        elif isinstance(action, Wake):
            self.wake = True
        elif isinstance(action, ev.Release):
            self.released.append(action)
        elif isinstance(action, ev.Owe):
            self.owed.append(action)
        elif isinstance(action, AWAITED):
            self._judge(action)
            if action not in self.pending:
                self.pending.append(action)

    def _judge(self, action: Any) -> None:
        """Never may both hosts run it."""
        if action == ev.Say(RUN):
            assert self.qemu_gone, "the copy may run while QEMU here may"
        if isinstance(action, ev.Stay) and self.going.may_run_there:
            checked = self.asked_until_s is not None and self.now_s >= self.asked_until_s
            confirmed = self.handover is Handover.CONFIRMED and checked
            before = self.going.state is State.CALLING_OFF
            assert self.dropped or confirmed or before, "QEMU here may go on while the copy may run"
            assert not self.runs_there, "QEMU here may go on, and the copy runs"
        if isinstance(action, ev.DestroyHere):
            assert self.runs_there or self.going.state is State.LOST, "nothing of the VM is left"

    def replies(self, action: Any) -> list[Any]:
        """What may become of what is under way."""
        if isinstance(action, ev.Say):
            return self._answers(action.verdict)
        if isinstance(action, ev.Look):
            return self._looks()
        others: dict[type, list[Any]] = {
            ev.Offer: [
                ev.Reached(),
                ev.Accepted(encrypted=False),
                BUSY,
                ev.Refused(MigrationFailed("no")),
            ],
            ev.Mark: [ev.Marked(), ev.NotMarked(MigrationFailed("no"))],
            ev.Suspend: [ev.Suspended()],
            ev.Stay: [ev.Stays(lifecycle.RUNNING), ev.NotKnown("libvirt is gone")],
            ev.DestroyHere: [ev.Destroyed(), ev.NotDestroyed("libvirt is gone")],
        }
        return others[type(action)]

    def _looks(self) -> list[Any]:
        if self.qemu_gone:
            return [GONE, ev.Looked(None)]
        seen = [Here.INTERRUPTED, Here.BUSY]
        if self.handover is Handover.LIBVIRT:
            seen += [Here.POST_COPY, Here.BROKEN_OFF]
        return [GONE, IDLE, ev.Looked(None), *(ev.Looked(here) for here in seen)]

    def _answers(self, verdict: Verdict) -> list[Any]:
        answers = [UNREACHED, SOMEHOW]
        if not self.runs_there:
            answers.append(ev.Answered(5))
        if verdict is RUN:
            return [*answers, ev.Objected(NOT_THERE)]
        return answers if self.dropped else [*answers, ev.Objected(THERE)]

    def answered(self, action: Any, event: Any) -> None:
        if isinstance(event, ev.Reached):
            self.tell(event)
            return
        self.pending.remove(action)
        if isinstance(action, ev.Say) and isinstance(event, ev.Answered):
            self.runs_there = self.runs_there or action.verdict is RUN
            self.dropped = self.dropped or action.verdict is DROP
        if event == ev.Objected(THERE) and self.going.state is not State.BROKEN_OFF:
            self.runs_there = True
        self.tell(event)

    @property
    def happens(self) -> list[Any]:
        """What may happen by itself."""
        state = self.going.state
        events = [ev.Stirred(), ev.Cancelled(), ev.Doomed(), ev.Stopped(), ev.Passed(2)]
        events.append(ev.Ended(lifecycle.GUEST_SHUT_DOWN))
        if state is State.WAITING and not self.known_there:
            events.append(ev.Turn())
        if self.wake:
            events.append(Due())
        if ev.QemuGone in TABLE[state]:
            events += [ev.Figures(COPYING), ev.LimitAsked(8), ev.LimitSet(), ev.LimitNotSet("no")]
            events += [ev.StoppedForHandover(), ev.QemuGone()]
            events += [ev.RunsThere()] if self.handover is Handover.LIBVIRT else []
        if self.call:
            events += [ev.CallEnded(), ev.CallEnded(MigrationFailed("no"), "no")]
        return events

    def owed_to_somebody(self) -> None:
        """Never is a VM owed to nobody: somebody is to answer, or a time is to come."""
        state = self.going.state
        if state is State.OVER:
            assert len(self.released) == 1
            settled = self.owed or self.dropped or self.runs_there or not self.known_there
            assert settled, "the other host is told nothing"
            return
        assert self.released == []
        waits_its_turn = state is State.WAITING
        assert self.pending or self.wake or self.call or waits_its_turn, f"{state} is for ever"


# Which of what may happen does, one number for each step.
CHOICES = st.lists(st.integers(0, 2**16), min_size=1, max_size=60)


@given(st.sampled_from(Handover), st.booleans(), CHOICES)
def test_never_may_both_run_it_and_never_is_it_owed_to_nobody(
    handover: Handover, found: bool, choices: list[int]
) -> None:
    hosts = Hosts(handover)
    if found:
        hosts.known_there = True
        hosts.tell(ev.Found())
    for choice in choices:
        hosts.owed_to_somebody()
        if hosts.going.over:
            break
        possible = [(a, e) for a in hosts.pending for e in hosts.replies(a)]
        by_itself = hosts.happens
        n = choice % (len(possible) + len(by_itself))
        if n < len(possible):
            hosts.answered(*possible[n])
        else:
            hosts.tell(by_itself[n - len(possible)])
    hosts.owed_to_somebody()


# The last word


@pytest.mark.parametrize("state", last_word.State, ids=lambda state: state.name)
def test_each_event_while_a_last_word_is_owed(state: last_word.State) -> None:
    way = {last_word.State.OWED: (), last_word.State.YIELDING: (ev.Objected(THERE),)}
    for event in EVENTS:
        owing = LastWord("web", "host2:54321", ev.Owe(DROP, may_yield=True))
        for one in way.get(state, (ev.Answered(),)):
            owing.receive(one, 0.0)
        assert owing.state is state
        cell = last_word.TABLE[state].get(type(event))
        if cell is None:
            with pytest.raises(IllegalEvent, match=f"cannot happen in state {state.name}"):
                owing.receive(event, 1.0)
        else:
            owing.receive(event, 1.0)
            assert owing.state in (state, *cell[1:])


def test_it_is_said_until_it_is_heard() -> None:
    """For days, if it has to be; and a host that cannot do it yet has not done it."""
    owing = LastWord("web", "host2:54321", ev.Owe(DROP))
    assert owing.receive(last_word.BEGIN, 0.0) == [ev.Say(DROP)]
    assert owing.trouble == ""
    note, wake = owing.receive(UNREACHED, 1.0)
    assert (note.text, wake) == ("web: no answer; trying on", Wake(0.2))
    for day in range(1, 20):
        assert owing.receive(Due(), day * 86400.0) == [ev.Say(DROP)]
        (wake,) = owing.receive(SOMEHOW if day % 2 else UNREACHED, day * 86400.0)
    assert wake == Wake(30.0)
    assert owing.trouble == "that host cannot reach libvirt"
    (note,) = owing.receive(ev.Answered(), 1e9)
    assert note.text == "web: host host2:54321 knows now what becomes of it"
    assert owing.over
    assert not owing.runs_there


@pytest.mark.parametrize(
    ("verdict", "why", "over"),
    [
        (DROP, THERE, True),
        (DROP, MigrationFailed("an error of a later version"), False),
        (DROP, Recovering("it is being read"), False),
        (RUN, NOT_THERE, True),
        (RUN, MigrationFailed("it is not whole"), True),
        (RUN, Recovering("it is being read"), False),
    ],
)
def test_which_objections_are_the_end_of_it(verdict: Verdict, why: Any, over: bool) -> None:
    owing = LastWord("web", "host2:54321", ev.Owe(verdict))
    owing.receive(ev.Objected(why), 1.0)
    assert owing.over is over
    assert owing.runs_there is (why is THERE)


def test_a_vm_yields_to_a_copy_that_was_let_run() -> None:
    owing = LastWord("web", "host2:54321", ev.Owe(DROP, may_yield=True))
    assert owing.receive(ev.Objected(THERE), 1.0) == [ev.Yield()]
    assert wanted(owing.receive(ev.NotDestroyed("libvirt is gone"), 1.0)) == [Wake(0.5)]
    assert owing.receive(Due(), 1.5) == [ev.Yield()]
    owing.receive(ev.Destroyed(), 1.6)
    assert owing.over
