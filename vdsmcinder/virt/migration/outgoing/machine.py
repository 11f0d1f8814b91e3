# SPDX-License-Identifier: GPL-2.0-or-later
"""An outgoing migration as a state machine: events in, actions out; TABLE is all of it.

It is pure: no asyncio, no libvirt, no clock; the time comes in with the events, in seconds of the
monotonic clock. What is a fact of the migration is known here and changed here alone. Who may run
the VM when is told in virt/vm/migration.py. There are three ends: its QEMU process here has ended,
so that the copy may run; it goes on here, so that the copy must not; or it stands here and the copy
may run already, so that the other host has to be asked.

In post-copy the copy runs and needs what is here: that it breaks off is no end. As long as both
QEMU processes live nothing is lost: each keeps its half, and the guest waits for memory that is not
there. Often the connection comes to life by itself when the network is back. When QEMU has given it
up, libvirt is to make another (VIR_MIGRATE_POSTCOPY_RESUME), again and again.
https://www.qemu.org/docs/master/devel/migration/postcopy.html#postcopy-recovery
QEMU takes part in that only while its main loop runs, and the main loop itself may wait for memory
of the guest that is not there: then libvirt's call hangs, and that VM can only be destroyed. So a
connection that may yet come to life is left alone for as long as TCP may take to try again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vdsmcinder.virt.migration.common.table import Due, Row, take_in
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.states import State
from vdsmcinder.virt.migration.outgoing.transitions import Transitions

# How to read TABLE: in the state of a row, an event of the type that begins a line is taken in
# by the method that follows. Then stand the states to which it may lead; where there are none, and
# in other cases, the state stays. A row that begins with ** has the lines of that name as well, but
# for those that it has itself. What is in no line of a row cannot happen there: IllegalEvent.
_M, _S = Transitions, State

# libvirt and engines may say this at any time; before it is copied, most of it calls that off.
_BEFORE: Row = {
    ev.StoppedForHandover: (_M._stand,),
    ev.RunsThere: (_M._stand,),
    ev.Stopped: (_M._stop_before, _S.CALLING_OFF),
    ev.Ended: (_M._stop_before, _S.CALLING_OFF),
    ev.Cancelled: (_M._stop_before, _S.CALLING_OFF),
    ev.Doomed: (_M._stop_before, _S.CALLING_OFF),
    ev.Stirred: (_M._ignore,),
    ev.Passed: (_M._ignore,),
}
# Where an answer is awaited that settles everything, it is kept in mind.
_NOTED: Row = {
    ev.StoppedForHandover: (_M._stand,),
    ev.RunsThere: (_M._stand,),
    ev.Stopped: (_M._halt,),
    ev.Ended: (_M._has_ended,),
    ev.Cancelled: (_M._is_cancelled,),
    ev.Doomed: (_M._is_cancelled,),
    ev.Stirred: (_M._ignore,),
    ev.Passed: (_M._ignore,),
}
# From the beginning of the copy on there is more that goes on beside the state.
_COPIED: Row = {
    **_NOTED,
    ev.RunsThere: (_M._runs_there,),
    ev.QemuGone: (_M._is_gone,),
    ev.CallEnded: (_M._call_ended,),
    ev.Figures: (_M._figures,),
    ev.LimitAsked: (_M._limit,),
    ev.LimitSet: (_M._limit_set,),
    ev.LimitNotSet: (_M._limit_not_set,),
}
_JUDGED = (
    _S.POST_COPY,
    _S.BROKEN_OFF,
    _S.LETTING_RUN,
    _S.FINDING_WHY,
    _S.STAYING,
    _S.SUSPENDING,
    _S.CHECKING,
)

TABLE: Mapping[State, Row] = {
    _S.WAITING: {
        **_BEFORE,
        ev.Turn: (_M._offer, _S.OFFERED),
        Due: (_M._offer, _S.OFFERED),
        ev.Found: (_M._take_up, _S.COPYING),
    },
    _S.OFFERED: {
        **_BEFORE,
        ev.Reached: (_M._reached,),
        ev.Accepted: (_M._mark, _S.MARKING),
        ev.Busy: (_M._wait, _S.WAITING),
        ev.Refused: (_M._refuse, _S.CALLING_OFF),
    },
    _S.MARKING: {
        **_NOTED,
        ev.Marked: (_M._begin, _S.COPYING, _S.CALLING_OFF),
        ev.NotMarked: (_M._refuse, _S.CALLING_OFF),
    },
    _S.CALLING_OFF: {
        **_NOTED,
        ev.Reached: (_M._reached,),
        ev.Stays: (_M._called_off, _S.OVER),
        ev.NotKnown: (_M._called_off, _S.OVER),
    },
    _S.COPYING: {
        **_COPIED,
        ev.Passed: (_M._pass,),
        ev.Figures: (_M._advance,),
        ev.Cancelled: (_M._abort,),
        ev.Doomed: (_M._abort,),
        ev.StoppedForHandover: (_M._stand_watched,),
        ev.RunsThere: (_M._moves_there, _S.POST_COPY),
        ev.Stopped: (_M._stir,),
        ev.Ended: (_M._stir,),
        ev.Stirred: (_M._stir,),
        Due: (_M._due,),
        ev.CallEnded: (_M._look,),
        ev.QemuGone: (_M._gone, _S.LETTING_RUN, _S.FINDING_WHY),
        ev.Looked: (_M._judge, *_JUDGED),
    },
    _S.POST_COPY: {
        **_COPIED,
        ev.Stopped: (_M._stir,),
        ev.Ended: (_M._stir,),
        ev.Stirred: (_M._stir,),
        Due: (_M._due,),
        ev.CallEnded: (_M._look,),
        ev.QemuGone: (_M._gone, _S.LETTING_RUN, _S.FINDING_WHY),
        ev.Looked: (_M._judge, *_JUDGED),
    },
    _S.BROKEN_OFF: {
        **_COPIED,
        ev.QemuGone: (_M._gone, _S.LETTING_RUN, _S.FINDING_WHY),
        Due: (_M._say_drop,),
        ev.Objected: (_M._go_on, _S.POST_COPY),
        ev.Unreached: (_M._go_on, _S.POST_COPY),
        ev.Answered: (_M._lose, _S.LOST),
    },
    _S.LETTING_RUN: {
        **_COPIED,
        ev.Doomed: (_M._doomed_now, _S.FINDING_WHY),
        ev.Answered: (_M._runs_now, _S.CLOSING),
        ev.Objected: (_M._may_not_run, _S.FINDING_WHY),
        ev.Unreached: (_M._again,),
        Due: (_M._say_run,),
    },
    _S.CLOSING: {
        **_COPIED,
        ev.CallEnded: (_M._closed, _S.OVER),
        ev.Ended: (_M._stir,),
        ev.Stirred: (_M._stir,),
        ev.Looked: (_M._close_when_gone, _S.OVER),
        Due: (_M._close_when_due, _S.OVER),
    },
    _S.FINDING_WHY: {
        **_COPIED,
        ev.Ended: (_M._look,),
        ev.Looked: (_M._found_why, _S.OVER),
        Due: (_M._why_due, _S.OVER),
    },
    _S.CHECKING: {
        **_COPIED,
        ev.Answered: (_M._stay_for_it_is_dropped, _S.STAYING),
        ev.Objected: (_M._is_it_there, _S.GIVING_UP),
        ev.Unreached: (_M._again,),
        Due: (_M._check_due, _S.STAYING),
    },
    _S.STAYING: {
        **_COPIED,
        ev.Stays: (_M._stays, _S.OVER),
        ev.NotKnown: (_M._look_anew, _S.COPYING, _S.LETTING_RUN, _S.FINDING_WHY),
    },
    _S.SUSPENDING: {
        **_COPIED,
        ev.Suspended: (_M._contest, _S.CONTESTED),
    },
    _S.CONTESTED: {
        **_COPIED,
        ev.Answered: (_M._resume, _S.RESUMING, _S.FINDING_WHY),
        ev.Objected: (_M._is_it_there, _S.GIVING_UP),
        ev.Unreached: (_M._again,),
        Due: (_M._say_drop,),
    },
    _S.RESUMING: {
        **_COPIED,
        ev.Doomed: (_M._doomed_now, _S.FINDING_WHY),
        ev.Looked: (_M._resume_if_there, _S.FINDING_WHY),
        ev.Stays: (_M._stays, _S.OVER),
        ev.NotKnown: (_M._not_resumed,),
        Due: (_M._look,),
    },
    _S.GIVING_UP: {
        **_COPIED,
        ev.Destroyed: (_M._given_up, _S.OVER),
        ev.NotDestroyed: (_M._not_destroyed,),
        Due: (_M._destroy,),
    },
    _S.LOST: {
        **_COPIED,
        ev.Destroyed: (_M._lost, _S.OVER),
        ev.NotDestroyed: (_M._not_destroyed,),
        Due: (_M._destroy,),
    },
    _S.OVER: {},
}


class OutgoingMachine(Transitions):
    """One migration away from this host; see Transitions for what is known of it."""

    def receive(self, event: ev.Event, now_s: float) -> Sequence[ev.Action]:
        """What is to be done now. Raises IllegalEvent, and nothing has changed then."""
        return take_in(self, TABLE, event, now_s)
