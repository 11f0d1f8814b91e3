# SPDX-License-Identifier: GPL-2.0-or-later
"""What the state machines of migrations share: how a table is read, and what all of them want done.

A machine is pure: it takes in events, with the time, and gives actions. runner.py carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class IllegalEvent(Exception):
    """An event that cannot happen in the state that the machine is in."""


@dataclass(frozen=True)
class Due:
    """An event: the time of the last Wake has come."""


@dataclass(frozen=True)
class Wake:
    """An action: Due, in so many seconds; in place of the Wake before."""

    after_s: float


@dataclass(frozen=True)
class Note:
    """An action: a line in the log. level: one of logging's."""

    level: int
    text: str


class Machine(Protocol):
    """What runner.py runs. state: one of an enum. over: nothing more is to be done."""

    state: Any

    @property
    def over(self) -> bool:
        """Whether no event is taken in any more."""

    def receive(self, event: Any, now_s: float) -> Sequence[Any]:
        """What is to be done now. now_s: monotonic clock. Raises IllegalEvent."""


# By the type of an event, the method that takes it in, and the states that it may lead to.
Row = Mapping[type, Sequence[Any]]


def take_in(
    machine: Machine, table: Mapping[Any, Row], event: object, now_s: float
) -> Sequence[Any]:
    """Have the machine take in an event as its table says; gives the actions.

    Raises IllegalEvent for an event that is not in the row of the state; nothing has changed then.
    """
    cell = table[machine.state].get(type(event))
    if cell is None:
        raise IllegalEvent(f"{event} cannot happen in state {machine.state.name}")
    method, *leads_to = cell
    before = machine.state
    actions: Sequence[Any] = method(machine, event, now_s)
    assert machine.state is before or machine.state in leads_to, (before, event, machine.state)
    return actions
