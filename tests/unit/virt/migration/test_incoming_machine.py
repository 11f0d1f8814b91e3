# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine of an incoming migration: its table, cell by cell, and whatever may happen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.virt.migration.common.table import Due, IllegalEvent, Note, Wake
from vdsmcinder.virt.migration.incoming import events as ev
from vdsmcinder.virt.migration.incoming import machine
from vdsmcinder.virt.migration.incoming.events import Seen
from vdsmcinder.virt.migration.incoming.machine import TABLE, IncomingMachine, State
from vdsmcinder.virt.vm import lifecycle

GONE = ResourceUnavailable("libvirt is gone")
# One event of each kind.
EVENTS: tuple[Any, ...] = (
    ev.Announced(60.0),
    ev.Comes(),
    ev.Whole(lifecycle.PAUSED_BY_US),
    ev.RunsEarly(),
    ev.Runs(all_came=True, change=lifecycle.RUNNING),
    ev.Told(lifecycle.PAUSED_BY_IO_ERROR),
    ev.Ended(lifecycle.QEMU_LOST),
    ev.Stirred(),
    ev.Looked(Seen.WHOLE, lifecycle.PAUSED_BY_US),
    ev.RunAsked(),
    ev.LetRun(),
    ev.NotYet(),
    ev.NotThere(),
    ev.NotPossible(GONE),
    ev.Killed(),
    ev.NotKilled(GONE),
    ev.Dropped("its source keeps it"),
    ev.SourceSays(kept=True),
    ev.SourceSilent("it does not answer"),
    ev.DestroyAsked(),
    Due(),
)
# Events that lead to each state, and how many seconds after the one before.
WAYS: dict[State, Sequence[tuple[float, Any]]] = {
    State.EXPECTED: [(0.0, ev.Announced(60.0))],
    State.COMING: [(0.0, ev.Comes())],
    State.WHOLE: [(0.0, ev.Comes()), (0.0, ev.Whole())],
    State.SILENT: [(0.0, ev.Comes()), (0.0, ev.Whole()), (15.0, Due())],
    State.POST_COPY: [(0.0, ev.Comes()), (0.0, ev.RunsEarly())],
    State.ARRIVED: [(0.0, ev.Comes()), (0.0, ev.Runs(all_came=True))],
    State.FAILED: [(0.0, ev.Comes()), (0.0, ev.Ended())],
}


def at(state: State) -> IncomingMachine:
    coming, now_s = IncomingMachine("web-id", "web", "host1"), 0.0
    for after_s, event in WAYS[state]:
        now_s += after_s
        coming.receive(event, now_s)
    assert coming.state is state
    return coming


def about(seconds: float) -> Any:
    """So many, as nearly as numbers with fractions can say it."""
    return pytest.approx(seconds)


def wanted(actions: Sequence[Any]) -> list[Any]:
    """Without what is only said to a log."""
    return [action for action in actions if not isinstance(action, Note)]


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_each_event_in_each_state(state: State) -> None:
    """It leads to where the table says, or is refused in words, and then changes nothing."""
    for event in EVENTS:
        coming = at(state)
        cell = TABLE[state].get(type(event))
        if cell is None:
            before = vars(coming).copy()
            with pytest.raises(IllegalEvent, match=f"cannot happen in state {state.name}"):
                coming.receive(event, 20.0)
            assert vars(coming) == before
        else:
            coming.receive(event, 20.0)
            assert coming.state in (state, *cell[1:]), event


def test_every_kind_of_event_is_in_these_tests() -> None:
    assert {type(event) for event in EVENTS} == {event for row in TABLE.values() for event in row}
    assert len(EVENTS) == len({type(event) for event in EVENTS})


def test_it_is_pure() -> None:
    for module in (machine, ev):
        source = inspect.getsource(module)
        for name in ("asyncio", "libvirt", "time", "threading"):
            assert f"import {name}\n" not in source


ENDS_WELL = [ev.Arrive(), ev.Read(), ev.Release(ok=True)]
FAILS = [
    ev.Apply(lifecycle.DID_NOT_ARRIVE, asked=True),
    ev.CleanUp(undefine=True),
    ev.Release(ok=False),
]
LOST = [
    ev.Apply(lifecycle.QEMU_LOST),
    ev.CleanUp(undefine=False),
    ev.Release(ok=False),
]


@pytest.mark.parametrize(
    ("state", "event", "actions"),
    [
        (State.EXPECTED, Due(), [Wake(60.0)]),
        (State.EXPECTED, ev.DestroyAsked(), [Wake(5.0)]),
        (State.EXPECTED, ev.Comes(), []),
        (State.EXPECTED, ev.Stirred(), [ev.Look(), Wake(60.0)]),
        (State.EXPECTED, ev.Looked(Seen.ABSENT), [Wake(60.0)]),
        (State.EXPECTED, ev.RunAsked(), [ev.TryToRun(ran=False), Wake(60.0)]),
        (State.EXPECTED, ev.Dropped("no"), [FAILS[0], FAILS[2]]),
        (State.COMING, ev.Whole(), [Wake(15.0)]),
        (State.COMING, ev.Looked(Seen.ABSENT), FAILS),
        (State.COMING, ev.Looked(Seen.RUNS), ENDS_WELL),
        (State.COMING, ev.RunsEarly(), [ev.Began(known=True), ev.Arrive()]),
        (State.COMING, ev.Looked(Seen.RUNS_EARLY), [ev.Began(known=False), ev.Arrive()]),
        (State.COMING, ev.DestroyAsked(), []),
        (State.COMING, ev.Ended(lifecycle.DESTROYED), FAILS),
        (State.WHOLE, ev.RunAsked(), [ev.TryToRun(ran=False), Wake(15.0)]),
        (State.WHOLE, ev.LetRun(), [ev.Began(known=True), *ENDS_WELL]),
        (State.WHOLE, ev.Runs(all_came=False), [ev.Began(known=True), *ENDS_WELL]),
        (State.SILENT, ev.Dropped("no"), FAILS),
        (
            State.SILENT,
            ev.SourceSays(kept=True),
            [ev.GiveUp("its source keeps it"), Wake(about(0.2))],
        ),
        (State.SILENT, ev.SourceSays(kept=False), [Wake(about(0.2))]),
        (State.SILENT, ev.SourceSilent("it does not answer"), [Wake(about(0.2))]),
        (State.POST_COPY, ev.RunAsked(), [ev.TryToRun(ran=True)]),
        (State.POST_COPY, ev.Runs(all_came=True), ENDS_WELL[1:]),
        (
            State.POST_COPY,
            ev.Runs(all_came=False, change=lifecycle.RUNNING),
            [ev.Apply(lifecycle.RUNNING), ev.Look()],
        ),
        (
            State.POST_COPY,
            ev.Whole(lifecycle.PAUSED_BY_US),
            [ev.Apply(lifecycle.PAUSED_BY_US), ev.Look()],
        ),
        (State.POST_COPY, ev.Looked(Seen.STANDS), ENDS_WELL[1:]),
        (State.POST_COPY, ev.Ended(), LOST),
        (State.POST_COPY, ev.NotThere(), []),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_what_is_to_be_done(state: State, event: Any, actions: list[Any]) -> None:
    now_s = 15.0 if state is State.SILENT else 0.0
    assert wanted(at(state).receive(event, now_s)) == actions


def replied(actions: Sequence[Any]) -> str | None:
    """What a source is answered that has asked that it run; None if it is not."""
    replies = [action for action in actions if isinstance(action, ev.Reply)]
    if not replies:
        return None
    (reply,) = replies
    return "it runs" if reply.error is None else str(reply.error.message)


def test_one_that_does_not_come_in_time() -> None:
    coming = at(State.EXPECTED)
    assert wanted(coming.receive(Due(), 59.0)) == [Wake(1.0)]
    *_, release = coming.receive(Due(), 60.0)
    assert release == ev.Release(ok=False)


def test_one_that_is_destroyed_before_it_comes() -> None:
    coming = at(State.EXPECTED)
    coming.receive(ev.DestroyAsked(), 1.0)
    assert wanted(coming.receive(Due(), 6.0)) == [ev.Look(), Wake(5.0)]
    note, *_ = coming.receive(ev.Looked(Seen.ABSENT), 6.1)
    assert coming.over
    assert "it was destroyed here before it came" in note.text


def test_one_that_is_destroyed_while_libvirt_prepares_to_take_it_in() -> None:
    """On a host that is busy QEMU takes its time to start."""
    coming = at(State.EXPECTED)
    coming.receive(ev.DestroyAsked(), 1.0)
    coming.receive(Due(), 6.0)
    assert wanted(coming.receive(ev.Looked(Seen.GONE), 6.1)) == [Wake(about(4.9))]
    coming.receive(ev.Comes(), 8.0)
    assert coming.state is State.COMING


def test_one_that_is_destroyed_of_which_libvirt_does_not_tell() -> None:
    coming = at(State.EXPECTED)
    coming.receive(ev.DestroyAsked(), 1.0)
    for now_s in range(6, 60, 5):
        assert ev.Look() in coming.receive(Due(), float(now_s))
    coming.receive(Due(), 60.0)
    assert coming.over


def test_a_source_that_is_not_heard_of() -> None:
    coming = at(State.WHOLE)
    assert coming.trouble == ""
    note, ask = coming.receive(Due(), 15.0)
    assert (note.text, ask) == (coming.trouble, ev.AskSource())
    assert coming.trouble.startswith("VM web-id (web) has come whole from host1 and stands still")


def test_a_source_is_asked_until_it_says_that_it_keeps_the_vm() -> None:
    coming, now_s = at(State.SILENT), 15.0
    for _ in range(20):
        *_, wake = coming.receive(ev.SourceSilent("no route to host1"), now_s)
        assert "has not said yet that it may run (no route to host1); have" in coming.trouble
        now_s += wake.after_s
        assert coming.receive(Due(), now_s) == [ev.AskSource()]
    assert wake == Wake(about(30.0))
    *_, wake = coming.receive(ev.SourceSays(kept=False), now_s)
    assert "that it may run; have" in coming.trouble
    now_s += wake.after_s
    assert coming.receive(Due(), now_s) == [ev.AskSource()]
    give_up, _ = coming.receive(ev.SourceSays(kept=True), now_s)
    assert give_up == ev.GiveUp("its source keeps it")
    coming.receive(ev.Dropped(give_up.why), now_s)
    assert coming.state is State.FAILED


def test_a_source_is_asked_no_more_when_it_has_spoken() -> None:
    coming = at(State.SILENT)
    coming.receive(ev.SourceSilent("no route to host1"), 15.0)
    coming.receive(ev.RunsEarly(), 15.1)
    assert ev.AskSource() not in coming.receive(Due(), 20.0)


def test_its_source_speaks_before_it_is_whole() -> None:
    coming = at(State.COMING)
    assert wanted(coming.receive(ev.RunAsked(), 0.0)) == [ev.TryToRun(ran=False)]
    assert wanted(coming.receive(ev.NotYet(), 0.1)) == [Wake(about(0.2))]
    assert ev.TryToRun(ran=False) in coming.receive(ev.Whole(), 0.2)
    assert replied(coming.receive(ev.LetRun(), 0.3)) == "it runs"


def test_its_source_is_told_that_it_does_not_become_whole() -> None:
    coming = at(State.COMING)
    coming.receive(ev.RunAsked(), 0.0)
    assert replied(coming.receive(ev.NotYet(), 9.9)) is None
    assert "did not arrive whole" in (replied(coming.receive(ev.NotYet(), 10.0)) or "")
    assert coming.state is State.COMING
    coming.receive(ev.RunAsked(), 20.0)
    assert "did not arrive whole" in (replied(coming.receive(ev.NotThere(), 20.1)) or "")
    coming.receive(ev.RunAsked(), 30.0)
    assert replied(coming.receive(ev.NotPossible(GONE), 30.1)) == "libvirt is gone"
    coming.receive(ev.RunAsked(), 40.0)
    assert "did not arrive whole" in (replied(coming.receive(ev.Ended(), 40.1)) or "")


def test_what_runs_without_all_of_its_memory_is_ended() -> None:
    coming = at(State.POST_COPY)
    coming.receive(ev.RunAsked(), 0.0)
    assert wanted(coming.receive(ev.NotYet(), 10.0)) == [ev.Kill()]
    assert replied(coming.receive(ev.NotKilled(GONE), 10.1)) == "libvirt is gone"
    coming.receive(ev.RunAsked(), 20.0)
    coming.receive(ev.NotYet(), 30.0)
    actions = wanted(coming.receive(ev.Killed(), 30.1))
    assert actions[0] == ev.Apply(lifecycle.POSTCOPY_FAILED, asked=True)
    assert "did not arrive whole" in (replied(actions) or "")


CHOICES = st.lists(st.integers(0, 2**16), min_size=1, max_size=40)


@given(CHOICES)
def test_it_runs_only_when_it_is_let_and_everybody_is_answered(choices: list[int]) -> None:
    """libvirt lets it run, or the machine does when its source has said so; it is over once.

    Whoever asked is answered, or there is something to wait for.
    """
    coming, now_s = IncomingMachine("web-id", "web", "host1"), 0.0
    told = wake = False
    pending: list[Any] = []
    over: list[Any] = []
    asked = 0
    coming.receive(ev.Announced(60.0), now_s)
    results: dict[type, list[Any]] = {
        ev.Look: [ev.Looked(seen, lifecycle.RUNNING) for seen in Seen],
        ev.TryToRun: [ev.LetRun(), ev.NotYet(), ev.NotThere(), ev.NotPossible(GONE)],
        ev.Kill: [ev.Killed(), ev.NotKilled(GONE)],
        ev.AskSource: [ev.SourceSays(kept=False), ev.SourceSilent("it does not answer")],
    }
    by_itself = [e for e in EVENTS if not isinstance(e, (ev.Announced, ev.Looked, ev.LetRun))]
    by_itself = [e for e in by_itself if type(e) not in {type(r) for r in results[ev.TryToRun]}]
    by_itself = [e for e in by_itself if type(e) not in {ev.Killed, ev.NotKilled, Due}]
    by_itself = [e for e in by_itself if type(e) not in {ev.SourceSays, ev.SourceSilent}]
    for choice in choices:
        possible = [(a, e) for a in pending for e in results[type(a)]]
        events = [*by_itself, *([Due()] if wake else [])]
        n = choice % (len(possible) + len(events))
        if n < len(possible):
            action, event = possible[n]
            pending.remove(action)
        else:
            event = events[n - len(possible)]
        now_s += 1.0
        told = told or isinstance(event, ev.RunAsked)
        asked += isinstance(event, ev.RunAsked)
        for action in coming.receive(event, now_s):
            wake = wake or isinstance(action, Wake)
            if isinstance(action, ev.TryToRun):
                assert told, "nobody has said that it may run"
            if type(action) in results and action not in pending:
                pending.append(action)
            if isinstance(action, ev.Reply):
                asked = 0
            if isinstance(action, ev.Release):
                over.append(action)
        if coming.over:
            break
        assert not asked or pending or wake, "whoever asked is never answered"
        assert coming.state is not State.EXPECTED or wake, "it is expected for ever"
    assert len(over) == coming.over
    assert not (coming.over and asked), "whoever asked is never answered"
