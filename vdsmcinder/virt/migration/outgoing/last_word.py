# SPDX-License-Identifier: GPL-2.0-or-later
"""What the other host is still to be told when a migration is over: a state machine; TABLE is all.

It is pure, as machine.py is, and speaks its events and actions. The other host cleans up
by itself what it is not told in all that time, or is asked about when the VM migrates again.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence

from vdsmcinder.errors import VMExists
from vdsmcinder.virt.migration.common.table import Due, Note, Row, Wake, take_in
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.backoff import Backoff
from vdsmcinder.virt.migration.outgoing.transitions import LOOK_S

# For how long it is told, in seconds.
DROP_S = 300.0
# What has a machine begin.
BEGIN = Due()


class State(enum.Enum):
    """How it goes."""

    OWED = "the other host is told until it answers, but not for ever"
    YIELDING = "the VM runs there; QEMU here is ended"
    OVER = "it has answered, or nothing more is said"


class LastWord:
    """One verdict for one host. name: of the VM. address: of the other host's daemon, in words."""

    def __init__(self, name: str, address: str, owed: ev.Owe, now_s: float) -> None:
        self.state = State.OWED
        self._name = name
        self._address = address
        self._owed = owed
        self._until_s = now_s + DROP_S
        self._backoff = Backoff()
        self._told = False

    @property
    def over(self) -> bool:
        """Whether nothing is owed any more."""
        return self.state is State.OVER

    def receive(self, event: ev.Event, now_s: float) -> Sequence[ev.Action]:
        """What is to be done now. Raises IllegalEvent, and nothing has changed then."""
        return take_in(self, TABLE, event, now_s)

    def _say(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        if now_s >= self._until_s:
            self.state = State.OVER
            text = f"host {self._address} was not told what becomes of {self._name}"
            return [Note(logging.WARNING, text)]
        return [ev.Say(self._owed.verdict), Wake(self._until_s - now_s)]

    def _again(self, event: ev.Unreached, now_s: float) -> list[ev.Action]:
        pause_s = min(self._backoff.pause_s(), max(self._until_s - now_s, 0.0))
        told, self._told = self._told, True
        text = f"{self._name}: {event.why.message}; trying on"
        return [*([] if told else [Note(logging.WARNING, text)]), Wake(pause_s)]

    def _end(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.OVER
        return []

    def _refused(self, event: ev.Objected, now_s: float) -> list[ev.Action]:
        if not (self._owed.may_yield and isinstance(event.why, VMExists)):
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
        Due: (LastWord._say, State.OVER),
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
