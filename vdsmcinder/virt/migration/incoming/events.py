# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine of an incoming migration is told, and what it wants done: values alone.

An event is something that has happened; an action something that is to be done, and its docstring
says with which event the outcome is told. Times are in seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Union

from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.migration.common.table import Due, Note, Wake
from vdsmcinder.virt.vm.lifecycle import Change


class Seen(enum.Enum):
    """How libvirt has the domain on the destination."""

    ABSENT = "it has none"
    GONE = "it has no QEMU process"
    RUNS_EARLY = "its guest has run, and a migration goes on"
    RUNS = "its guest runs"
    WHOLE = "it stands, and not for its migration"
    STANDS = "it stands otherwise"


# Events


@dataclass(frozen=True)
class Announced:
    """Its source has offered it, and libvirt is to bring it within so many seconds."""

    within_s: float


@dataclass(frozen=True)
class Comes:
    """libvirt has begun to take it in."""


@dataclass(frozen=True)
class Whole:
    """All of it is here, and it stands. change: to the VM's status, had its guest run."""

    change: Change | None = None


@dataclass(frozen=True)
class RunsEarly:
    """Its guest runs, and the rest of its memory follows: post-copy. waits: it does not come."""

    waits: bool = False


@dataclass(frozen=True)
class Runs:
    """Its guest runs here. all_came: and nothing of it is on its source any more."""

    all_came: bool
    change: Change | None = None


@dataclass(frozen=True)
class Told:
    """libvirt tells anything else of it. change: to the VM's status."""

    change: Change | None = None


@dataclass(frozen=True)
class Ended:
    """There is no QEMU process of it here any more. change: to the VM's status, if it is known."""

    change: Change | None = None


@dataclass(frozen=True)
class Stirred:
    """libvirt was gone and is back: events may have been missed."""


@dataclass(frozen=True)
class Looked:
    """How libvirt has it. change: to the VM's status, by that."""

    seen: Seen
    change: Change | None = None


@dataclass(frozen=True)
class RunAsked:
    """Its source says that its QEMU process there has ended: it is to run here."""


@dataclass(frozen=True)
class LetRun:
    """It runs here now."""


@dataclass(frozen=True)
class NotYet:
    """It could not be let run. why: libvirt's words; empty if it is not whole yet."""

    why: str = ""


@dataclass(frozen=True)
class NotThere:
    """libvirt has no domain of it that could become whole."""


@dataclass(frozen=True)
class NotPossible:
    """libvirt cannot be called."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Killed:
    """What ran here without all of its memory was ended."""


@dataclass(frozen=True)
class NotKilled:
    """It could not be ended."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Dropped:
    """Its copy here was ended, for its source keeps it. why: in words."""

    why: str


@dataclass(frozen=True)
class SourceSays:
    """What its source answers to whether the VM stays there. kept: that it does."""

    kept: bool


@dataclass(frozen=True)
class SourceSilent:
    """Its source does not answer that. why: a sentence."""

    why: str


@dataclass(frozen=True)
class DestroyAsked:
    """It is being destroyed here."""


Event = Union[
    Announced,
    Comes,
    Whole,
    RunsEarly,
    Runs,
    Told,
    Ended,
    Stirred,
    Looked,
    RunAsked,
    LetRun,
    NotYet,
    NotThere,
    NotPossible,
    Killed,
    NotKilled,
    Dropped,
    SourceSays,
    SourceSilent,
    DestroyAsked,
    Due,
]


# Actions


@dataclass(frozen=True)
class Look:
    """Find out how libvirt has it: Looked, or nothing while libvirt cannot be asked."""


@dataclass(frozen=True)
class TryToRun:
    """Let it run if it is whole: LetRun, NotYet, NotThere or NotPossible.

    ran: its guest has run; if it stands, that is not for having come here.
    """

    ran: bool


@dataclass(frozen=True)
class Kill:
    """End what runs here without all of its memory: Killed or NotKilled."""


@dataclass(frozen=True)
class AskSource:
    """Ask its source whether the VM stays there: SourceSays or SourceSilent."""


@dataclass(frozen=True)
class GiveUp:
    """End the copy, for its source keeps the VM: Dropped."""

    why: str


@dataclass(frozen=True)
class Reply:
    """Answer whoever asked that it run. error: None if it does."""

    error: VdsmCinderError | None = None


@dataclass(frozen=True)
class Began:
    """Its guest was seen to begin to run here just now; known: or had before, nobody knows when."""

    known: bool


@dataclass(frozen=True)
class Apply:
    """Change the VM's status. asked: if an end of it was asked for, that is told in place."""

    change: Change
    asked: bool = False


@dataclass(frozen=True)
class Arrive:
    """The VM is Up here."""


@dataclass(frozen=True)
class Release:
    """It is over: libvirt's events are the VM's own again. ok: it runs here."""

    ok: bool


@dataclass(frozen=True)
class Read:
    """Take its mark from the domain, and read that."""


@dataclass(frozen=True)
class CleanUp:
    """A copy that had come has ended here: nothing of it is to be left. undefine: its domain."""

    undefine: bool


Action = Union[
    Look,
    TryToRun,
    Kill,
    AskSource,
    GiveUp,
    Reply,
    Began,
    Apply,
    Arrive,
    Release,
    Read,
    CleanUp,
    Note,
    Wake,
]

# What goes on whatever the machine's state becomes.
LASTING = (Look, TryToRun, Kill)
