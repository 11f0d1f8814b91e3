# SPDX-License-Identifier: GPL-2.0-or-later
"""What the other host is still to be told when a migration is over: a state machine; TABLE is all.

It is pure, as machine.py is, and speaks its events and actions. It is said until it is heard,
however long that takes: a whole, old copy must not be there to be let run.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence

from vdsmcinder.errors import MigrationFailed, NoSuchVM, VdsmCinderError, VMExists
from vdsmcinder.virt.migration.common.backoff import Backoff
from vdsmcinder.virt.migration.common.table import Due, Note, Row, Wake, take_in
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.transitions import LOOK_S
from vdsmcinder.virt.vm.migration import Verdict

# The longest pause between two tries, in seconds.
MOST_RETRY_S = 30.0
# What has a machine begin.
BEGIN = Due()
# Objections with which the other host has done all that it will do.
_FINAL: Mapping[Verdict, tuple[type[VdsmCinderError], ...]] = {
    Verdict.DROP: (VMExists,),
    Verdict.RUN: (NoSuchVM, MigrationFailed),
}


def is_heard(verdict: Verdict, reply: ev.Answered | ev.Objected | ev.Unreached) -> bool:
    """Whether the other host has done all about a verdict that it will do."""
    if isinstance(reply, ev.Objected):
        return isinstance(reply.why, _FINAL[verdict])
    return isinstance(reply, ev.Answered)


class State(enum.Enum):
    """How it goes."""

    OWED = "the other host is told until it answers"
    YIELDING = "the VM runs there; QEMU here is ended"
    OVER = "it has answered"


class LastWord:
    """One verdict for one host. name: of the VM. address: of the other host's daemon, in words.

    trouble: why it has not been heard yet, in words; empty until it was said in vain. runs_there:
    once it is over, whether the copy had begun to run.
    """

    def __init__(self, name: str, address: str, owed: ev.Owe) -> None:
        self.state = State.OWED
        self.trouble = ""
        self.runs_there = False
        self._name = name
        self._address = address
        self._owed = owed
        self._backoff = Backoff(MOST_RETRY_S)

    @property
    def over(self) -> bool:
        """Whether nothing is owed any more."""
        return self.state is State.OVER

    def receive(self, event: ev.Event, now_s: float) -> Sequence[ev.Action]:
        """What is to be done now. Raises IllegalEvent, and nothing has changed then."""
        return take_in(self, TABLE, event, now_s)

    def _say(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.Say(self._owed.verdict)]

    def _again(self, event: ev.Unreached | ev.Objected, _now_s: float) -> list[ev.Action]:
        told, self.trouble = bool(self.trouble), event.why.message
        text = f"{self._name}: {self.trouble}; trying on"
        return [
            *([] if told else [Note(logging.WARNING, text)]),
            Wake(self._backoff.pause_s()),
        ]

    def _end(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.OVER
        if not self.trouble:
            return []
        text = f"{self._name}: host {self._address} knows now what becomes of it"
        return [Note(logging.INFO, text)]

    def _refused(self, event: ev.Objected, now_s: float) -> list[ev.Action]:
        if not is_heard(self._owed.verdict, event):
            return self._again(event, now_s)
        self.runs_there = isinstance(event.why, VMExists)
        if not (self.runs_there and self._owed.may_yield):
            return self._end(event, now_s)
        self.state = State.YIELDING
        return [ev.Yield()]

    def _yield(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.Yield()]

    def _not_destroyed(self, event: ev.NotDestroyed, _now_s: float) -> list[ev.Action]:
        text = f"{self._name}: its QEMU process here cannot be ended yet: {event.why}"
        return [Note(logging.WARNING, text), Wake(LOOK_S)]


# To be read as the table of machine.py.
TABLE: Mapping[State, Row] = {
    State.OWED: {
        Due: (LastWord._say,),
        ev.Answered: (LastWord._end, State.OVER),
        ev.Objected: (LastWord._refused, State.YIELDING, State.OVER),
        ev.Unreached: (LastWord._again,),
    },
    State.YIELDING: {
        Due: (LastWord._yield,),
        ev.Destroyed: (LastWord._end, State.OVER),
        ev.NotDestroyed: (LastWord._not_destroyed,),
    },
    State.OVER: {},
}
