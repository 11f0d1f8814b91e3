# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine of an outgoing migration is told, and what it wants done: values alone.

An event is something that has happened; an action something that is to be done, and its docstring
says with which event the outcome is told. Whatever fails is an event, too. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.migration.common.table import Due, Note, Wake
from vdsmcinder.virt.migration.outgoing.states import Here
from vdsmcinder.virt.vm.convergence import Action as Step
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Progress, Verdict

# Events


@dataclass(frozen=True)
class Turn:
    """It is its turn to leave: not too many others do."""


@dataclass(frozen=True)
class Found:
    """A daemon that has just started finds the VM under way."""


@dataclass(frozen=True)
class Reached:
    """The other host's daemon is connected: from now on it may know of the VM."""


@dataclass(frozen=True)
class Accepted:
    """The other host can run the VM. encrypted: whether its data is to be."""

    encrypted: bool


@dataclass(frozen=True)
class Busy:
    """The other host takes in as many VMs as it may. why: its words."""

    why: str


@dataclass(frozen=True)
class Refused:
    """The VM cannot go there."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Marked:
    """The domain says that it migrates."""


@dataclass(frozen=True)
class NotMarked:
    """It could not be made to say so."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Passed:
    """QEMU begins another pass over the guest's memory. iteration: its count of them."""

    iteration: int


@dataclass(frozen=True)
class Figures:
    """How far libvirt is."""

    progress: Progress


@dataclass(frozen=True)
class LimitAsked:
    """An engine changes the bandwidth, in MiB/s, before there is data to limit."""

    mib_s: int


@dataclass(frozen=True)
class LimitSet:
    """The bandwidth is as it was asked for."""


@dataclass(frozen=True)
class LimitNotSet:
    """It could not be set."""

    why: str


@dataclass(frozen=True)
class StoppedForHandover:
    """libvirt has stopped the guest here, and its copy is about to be complete."""


@dataclass(frozen=True)
class RunsThere:
    """The guest runs on the other host, and the rest of its memory follows: post-copy."""


@dataclass(frozen=True)
class Stopped:
    """The guest was stopped here, and not for its handover. change: to the VM's status."""

    change: Change | None = None


@dataclass(frozen=True)
class Ended:
    """libvirt tells that the QEMU process here has ended. change: to the VM's status."""

    change: Change


@dataclass(frozen=True)
class QemuGone:
    """The kernel tells that the QEMU process here cannot run any more."""


@dataclass(frozen=True)
class Stirred:
    """Something has happened to the domain; a look tells what. change: to the VM's status."""

    change: Change | None = None


@dataclass(frozen=True)
class CallEnded:
    """libvirt's call that copies has come back. why: how it failed, None if it did not.

    words: libvirt's own, without what to do.
    """

    why: VdsmCinderError | None = None
    words: str = ""


@dataclass(frozen=True)
class Looked:
    """How libvirt has the domain; None if it did not say. change: to the VM's status, by that."""

    here: Here | None
    change: Change | None = None


@dataclass(frozen=True)
class Answered:
    """The other host has done what it was told.

    running_ms: for how long the guest had been running there by then, if it knows.
    """

    running_ms: int | None = None


@dataclass(frozen=True)
class Objected:
    """The other host refuses what it was told."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Unreached:
    """The other host could not be told, or its answer was lost."""

    why: VdsmCinderError


@dataclass(frozen=True)
class Suspended:
    """The guest here stands, as far as libvirt can see to that."""


@dataclass(frozen=True)
class Stays:
    """The domain says no more that it migrates. change: how it is.

    io_error: the I/O error for which QEMU has paused it, in words; empty for none.
    """

    change: Change
    io_error: str = ""


@dataclass(frozen=True)
class NotKnown:
    """libvirt could not be made to have the VM go on here."""

    why: str


@dataclass(frozen=True)
class Destroyed:
    """There is no QEMU process of the VM here."""


@dataclass(frozen=True)
class NotDestroyed:
    """It could not be ended."""

    why: str


@dataclass(frozen=True)
class Cancelled:
    """An engine wants it to end. Told again and again until it has."""


@dataclass(frozen=True)
class Doomed:
    """The VM is being destroyed; its QEMU process is killed next. Told again and again."""


Event = Union[
    Turn,
    Found,
    Reached,
    Accepted,
    Busy,
    Refused,
    Marked,
    NotMarked,
    Passed,
    Figures,
    LimitAsked,
    LimitSet,
    LimitNotSet,
    StoppedForHandover,
    RunsThere,
    Stopped,
    Ended,
    QemuGone,
    Stirred,
    CallEnded,
    Looked,
    Answered,
    Objected,
    Unreached,
    Suspended,
    Stays,
    NotKnown,
    Destroyed,
    NotDestroyed,
    Cancelled,
    Doomed,
    Due,
]


# Actions


@dataclass(frozen=True)
class Offer:
    """Ask the other host whether it can run the VM: Reached, then Accepted, Busy or Refused."""


@dataclass(frozen=True)
class Mark:
    """Have the domain say that it migrates: Marked or NotMarked."""

    encrypted: bool


@dataclass(frozen=True)
class Answer:
    """Answer VM.migrate, unless that has been done. error: None if the VM goes, or waits."""

    error: VdsmCinderError | None = None


@dataclass(frozen=True)
class Watch:
    """Tell from now on of QEMU's end, QemuGone, and of libvirt's figures, Figures."""


@dataclass(frozen=True)
class WatchClosely:
    """The guest stands: see at once when its QEMU process can run no more, QemuGone."""


@dataclass(frozen=True)
class Copy:
    """Have libvirt copy the VM: CallEnded. first: what the convergence schedule begins with."""

    first: Sequence[Step] = ()


@dataclass(frozen=True)
class ResumeCopy:
    """Have libvirt go on with a post-copy that broke off: CallEnded.

    break_off: have QEMU give up its old connection before.
    """

    break_off: bool


@dataclass(frozen=True)
class TakeStep:
    """Do what the convergence schedule says."""

    step: Step


@dataclass(frozen=True)
class SetSpeed:
    """Limit the data to so many MiB/s, 0 for no limit: LimitSet or LimitNotSet."""

    mib_s: int


@dataclass(frozen=True)
class Abort:
    """Have libvirt end the copying."""


@dataclass(frozen=True)
class Look:
    """Find out how libvirt has the domain: Looked."""


@dataclass(frozen=True)
class Say:
    """Tell the other host what becomes of the VM: Answered, Objected or Unreached."""

    verdict: Verdict


@dataclass(frozen=True)
class Suspend:
    """Have the guest here stand: Suspended."""


@dataclass(frozen=True)
class Owe:
    """See that the other host is told the verdict, as virt/migration/outgoing/debts.py does.

    may_yield: its copy may have been let run without a word from here. may_run: it may run with
    one, or libvirt have let it, so that no mark keeps it from that.
    """

    verdict: Verdict
    may_yield: bool = False
    may_run: bool = False


@dataclass(frozen=True)
class Stay:
    """Have the VM go on here, and its domain say no more that it migrates: Stays or NotKnown.

    resume: its guest stands, and is to be continued before. owes: what the domain is to say in
    place of that.
    """

    resume: bool = False
    owes: Owe | None = None


@dataclass(frozen=True)
class DestroyHere:
    """End the QEMU process here, for the VM runs on the other host or nowhere.

    Destroyed or NotDestroyed.
    """


@dataclass(frozen=True)
class Yield:
    """DestroyHere, of a VM that runs here although the other host was told that this one is off."""


@dataclass(frozen=True)
class Publish:
    """Tell engines how far it is."""

    progress: Progress


@dataclass(frozen=True)
class Left:
    """The VM runs on the other host: count it. took_s: since it was to migrate."""

    took_s: float


@dataclass(frozen=True)
class Release:
    """It is over: libvirt's events are the VM's own again. change: to the VM's status.

    asked: if an end of the VM was asked for, that is told in place of change.
    """

    change: Change
    asked: bool = False


Action = Union[
    Offer,
    Mark,
    Answer,
    Watch,
    WatchClosely,
    Copy,
    ResumeCopy,
    TakeStep,
    SetSpeed,
    Abort,
    Look,
    Say,
    Suspend,
    Stay,
    DestroyHere,
    Yield,
    Wake,
    Publish,
    Note,
    Owe,
    Left,
    Release,
]

# What goes on whatever the machine's state becomes; all else is of use only in that which wants it.
LASTING = (Watch, Copy, ResumeCopy, TakeStep, SetSpeed, Abort)
