# SPDX-License-Identifier: GPL-2.0-or-later
"""How far an outgoing migration is, what it begins with, and how libvirt may have its domain."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from vdsmcinder.virt.vm.convergence import Schedule
from vdsmcinder.virt.vm.migration import Handover, Phase


class State(enum.Enum):
    """How far it has come."""

    WAITING = "for its turn, or until the other host takes in others again"
    OFFERED = "the other host finds out whether it can run the VM"
    MARKING = "it can; the domain is made to say that it migrates"
    COPYING = "libvirt copies, and the guest runs here"
    POST_COPY = "libvirt copies, and the guest runs there"
    BROKEN_OFF = "the guest runs there, and the rest of its memory does not get there"
    LETTING_RUN = "QEMU here has ended; the other host is told RUN until it answers"
    CLOSING = "the VM runs there; libvirt's call is about to end"
    FINDING_WHY = "QEMU here has ended and no copy runs; libvirt is asked why it ended"
    CHECKING = "QEMU here goes on, but the copy may run: the other host is told DROP for a while"
    STAYING = "QEMU here goes on, and the domain is made to say so"
    SUSPENDING = "QEMU here goes on, but the copy may run: the guest here is made to stand"
    CONTESTED = "QEMU here stands, but the copy may run: the other host is told DROP, repeatedly"
    RESUMING = "QEMU here stands, and the copy is gone: it is continued"
    GIVING_UP = "the VM runs there; QEMU here is ended"
    LOST = "the VM ended there in post-copy; QEMU here is ended"
    CALLING_OFF = "it is not to be copied; the domain is made to say so"
    OVER = "the VM runs there, or here, or has ended"


PHASES: Mapping[State, Phase] = {
    State.WAITING: Phase.WAITING,
    State.OFFERED: Phase.OFFERED,
    State.MARKING: Phase.OFFERED,
    State.CALLING_OFF: Phase.OFFERED,
    State.COPYING: Phase.COPYING,
    State.POST_COPY: Phase.COPYING,
    State.BROKEN_OFF: Phase.COPYING,
    State.CHECKING: Phase.COPYING,
    State.STAYING: Phase.COPYING,
    State.OVER: Phase.OVER,
}


@dataclass(frozen=True)
class Plan:
    """What a migration begins with. address: the other host's daemon, in words.

    stall_timeout_s, progress_interval_s: as configured. call_timeout_s: how long a call of
    libvirt's may take that does not copy.
    """

    vm_id: str
    name: str
    address: str
    handover: Handover
    schedule: Schedule
    stall_timeout_s: float
    progress_interval_s: float
    call_timeout_s: float


class Here(enum.Enum):
    """How libvirt has the domain on the source."""

    GONE = "it has no QEMU process"
    BUSY = "a migration goes on"
    POST_COPY = "it runs on the other host, and its memory follows"
    BROKEN_OFF = "the same, and libvirt has noticed that the memory does not get there"
    INTERRUPTED = "it was left standing at its handover, and nothing goes on"
    IDLE = "it runs, or was stopped for something else, and nothing goes on"
