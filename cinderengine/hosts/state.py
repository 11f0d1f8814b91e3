# SPDX-License-Identifier: GPL-2.0-or-later
"""In which state a host is, and what is to be done about it: what happens in, actions out.

No sockets, no clock, no tasks: session.py has those. Times are seconds of any steady clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from cinderengine.model.hosts import HostStatus

# --- what happens


@dataclass(frozen=True)
class Joined:
    """The host was given its certificates."""


@dataclass(frozen=True)
class Activated:
    """Somebody wants it up."""


@dataclass(frozen=True)
class Deactivated:
    """Somebody wants it in maintenance."""


@dataclass(frozen=True)
class Opened:
    """A session with it stands."""


@dataclass(frozen=True)
class Closed:
    """A session ended, or could not be had. reason: a sentence.

    refused: the host is there, but is not to be trusted or does not let the engine in.
    """

    reason: str
    at_s: float
    refused: bool = False


@dataclass(frozen=True)
class Checked:
    """It was looked whether the host can be up. lacks: a sentence for what it cannot; or empty."""

    lacks: str


@dataclass(frozen=True)
class Emptied:
    """It was looked whether it can go to maintenance. holds: a sentence for what is in the way."""

    holds: str


Happening = Joined | Activated | Deactivated | Opened | Closed | Checked | Emptied

# --- what is to be done


@dataclass(frozen=True)
class Dial:
    """Begin a session, after so many seconds; one at a time."""

    after_s: float


@dataclass(frozen=True)
class Look:
    """Look, on the session that stands, whether the host can be up, or is empty."""


@dataclass(frozen=True)
class HangUp:
    """End the session, or what would begin one."""


@dataclass(frozen=True)
class Tell:
    """The host is in another state, or in the same for another reason."""

    status: HostStatus
    reason: str


Action = Dial | Look | HangUp | Tell

# --- the table


class _In(Enum):
    """What happens, as the table has it."""

    JOINED = "it was given certificates"
    ACTIVATED = "it is wanted up"
    DEACTIVATED = "it is wanted in maintenance"
    FIT = "it has all that it must have to be up"
    UNFIT = "it lacks something"
    LOST = "the session that stood ended"
    REFUSED = "no session, for it is not to be trusted or does not trust us"
    SILENT = "no session for longer than the grace"
    EMPTY = "nothing of ours is on it any more"


_S = HostStatus

# How to read it: in a state, what happens leads to another state. What is not there leads nowhere:
# in PREPARING_FOR_MAINTENANCE a lost session is dialled again, and the state stays.
NEXT: Mapping[HostStatus, Mapping[_In, HostStatus]] = {
    _S.PENDING_APPROVAL: {
        _In.JOINED: _S.INSTALLING,
    },
    _S.INSTALLING: {
        _In.FIT: _S.UP,
        _In.UNFIT: _S.NON_OPERATIONAL,
        _In.REFUSED: _S.NON_OPERATIONAL,
        _In.SILENT: _S.NON_RESPONSIVE,
        _In.ACTIVATED: _S.CONNECTING,
        _In.DEACTIVATED: _S.MAINTENANCE,
    },
    _S.CONNECTING: {
        _In.JOINED: _S.INSTALLING,
        _In.FIT: _S.UP,
        _In.UNFIT: _S.NON_OPERATIONAL,
        _In.REFUSED: _S.NON_OPERATIONAL,
        _In.SILENT: _S.NON_RESPONSIVE,
        _In.DEACTIVATED: _S.PREPARING_FOR_MAINTENANCE,
    },
    _S.UP: {
        _In.UNFIT: _S.NON_OPERATIONAL,
        _In.LOST: _S.CONNECTING,
        _In.DEACTIVATED: _S.PREPARING_FOR_MAINTENANCE,
    },
    _S.NON_OPERATIONAL: {
        _In.JOINED: _S.INSTALLING,
        _In.FIT: _S.UP,
        _In.LOST: _S.CONNECTING,
        _In.SILENT: _S.NON_RESPONSIVE,
        _In.ACTIVATED: _S.CONNECTING,
        _In.DEACTIVATED: _S.PREPARING_FOR_MAINTENANCE,
    },
    _S.NON_RESPONSIVE: {
        _In.JOINED: _S.INSTALLING,
        _In.FIT: _S.UP,
        _In.UNFIT: _S.NON_OPERATIONAL,
        _In.REFUSED: _S.NON_OPERATIONAL,
        _In.ACTIVATED: _S.CONNECTING,
        _In.DEACTIVATED: _S.MAINTENANCE,
    },
    _S.PREPARING_FOR_MAINTENANCE: {
        _In.EMPTY: _S.MAINTENANCE,
        _In.SILENT: _S.NON_RESPONSIVE,
        _In.ACTIVATED: _S.CONNECTING,
    },
    _S.MAINTENANCE: {
        _In.ACTIVATED: _S.CONNECTING,
    },
}
# In these nobody is connected, and nobody connects.
AT_REST = frozenset({_S.PENDING_APPROVAL, _S.MAINTENANCE})

# Of a host that goes to maintenance and is not there to give up anything.
KEEPS_KEYS = (
    "it could not be reached, so that it may have its authentication keys yet; activate it when it "
    "can be, and put it into maintenance again, or restart the machine"
)
# So long may a host be away until it is told of.
GRACE_S = 60.0
# The pause before each attempt: at first none, then twice the one before up to the longest; of each
# a random part, or hosts that a switch took away would all come back in one moment.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0


class HostMachine:
    """The state of one host. status, reason: as it was left.

    An action that is returned replaces one of its kind that is still under way.
    """

    def __init__(
        self,
        status: HostStatus,
        reason: str = "",
        *,
        grace_s: float = GRACE_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        # What was up may be gone by now.
        self.status: HostStatus = HostStatus.CONNECTING if status is HostStatus.UP else status
        self.reason = "" if status is HostStatus.UP else reason
        self._told = status, reason
        self._grace_s = grace_s
        self._chance = chance
        self._attempts = 0
        self._away_since_s: float | None = None
        self._stands = False

    @property
    def is_at_rest(self) -> bool:
        """Whether there is to be no session."""
        return self.status in AT_REST

    def begin(self) -> list[Action]:
        """What is to be done at first."""
        return [*self._news(), *([] if self.is_at_rest else [self._dial()])]

    def take(self, happened: Happening) -> list[Action]:
        """What is to be done now that this happened."""
        was_at_rest = self.is_at_rest
        actions: list[Action] = []
        match happened:
            case Joined():
                self._go(_In.JOINED, "")
                # It starts its services with the new certificates.
                actions = [HangUp(), self._dial_anew()] if self.status is _S.INSTALLING else []
            case Activated():
                if self._go(_In.ACTIVATED, ""):
                    actions = [Look()] if self._stands else [self._dial_anew()]
            case Deactivated():
                reason = KEEPS_KEYS if self.status is _S.NON_RESPONSIVE else ""
                if self._go(_In.DEACTIVATED, reason) and self._stands:
                    actions = [Look()]
            case Opened():
                self._stands, self._attempts, self._away_since_s = True, 0, None
                actions = [Look()]
            case Closed():
                actions = self._closed(happened)
            case Checked(lacks):
                self._checked(lacks)
            case Emptied(holds):
                self._emptied(holds)
        if self.is_at_rest and not was_at_rest:
            self._stands = False
            actions = [HangUp()]
        return [*self._news(), *actions]

    def _closed(self, closed: Closed) -> list[Action]:
        stood, self._stands = self._stands, False
        if self.is_at_rest:
            return []
        if self._away_since_s is None or stood:
            self._away_since_s = closed.at_s
        is_long = closed.at_s - self._away_since_s >= self._grace_s
        # What was given certificates a moment ago may show the old ones yet.
        if closed.refused and (is_long or self.status is not _S.INSTALLING):
            if not self._go(_In.REFUSED, closed.reason) and self.status is _S.NON_OPERATIONAL:
                self.reason = closed.reason
        elif is_long:
            self._go(_In.SILENT, closed.reason)
        elif stood:
            self._go(_In.LOST, closed.reason)
        if self.status is not _S.NON_OPERATIONAL:
            self.reason = closed.reason
        return [self._dial()]

    def _checked(self, lacks: str) -> None:
        if lacks and not self._go(_In.UNFIT, lacks) and self.status is _S.NON_OPERATIONAL:
            self.reason = lacks
        if not lacks:
            self._go(_In.FIT, "")

    def _emptied(self, holds: str) -> None:
        if self.status is not _S.PREPARING_FOR_MAINTENANCE:
            return
        if holds:
            self.reason = holds
        else:
            self._go(_In.EMPTY, "")

    def _go(self, happened: _In, reason: str) -> bool:
        """Where that leads, for that reason; False if it leads nowhere."""
        following = NEXT[self.status].get(happened)
        if following is None:
            return False
        self.status, self.reason = following, reason
        return True

    def _dial_anew(self) -> Dial:
        self._attempts, self._away_since_s, self._stands = 0, None, False
        return self._dial()

    def _dial(self) -> Dial:
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self._attempts, 16), LONGEST_PAUSE_S)
        self._attempts += 1
        return Dial(pause_s * self._chance())

    def _news(self) -> list[Action]:
        now = self.status, self.reason
        if now == self._told:
            return []
        self._told = now
        return [Tell(*now)]
