# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder doctor: all that a VM on Ceph needs on this host, checked one by one.

The checks run side by side, each with a deadline, and need no daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Callable

from vdsmcinder.ceph.findings import Check, Finding, State
from vdsmcinder.client import tables
from vdsmcinder.client.doctor import autostart, disks, libvirt, preparation
from vdsmcinder.client.doctor import host as doctor_host
from vdsmcinder.client.doctor.disks import Wanted
from vdsmcinder.client.doctor.host import Host
from vdsmcinder.client.exit_codes import UNSURE, UNWELL, CommandFailed
from vdsmcinder.client.system import libvirt_units
from vdsmcinder.client.tables import DIM, GREEN, RED, YELLOW
from vdsmcinder.config import Listen
from vdsmcinder.tasks import Tasks, within

DEADLINE_S = 10.0
# After so long it is said what is waited for, and how long it has been every so often.
PATIENCE_S = 1.0
COLOURS = {State.OK: GREEN, State.UNKNOWN: DIM, State.WARNING: YELLOW, State.WRONG: RED}
_STATE_WIDTH = max(len(state.value) for state in State)
_CHECK_WIDTH = 13


class Unwell(CommandFailed):
    """Something is wrong, and the findings say what."""

    exit_code = UNWELL


class Unsure(CommandFailed):
    """Nothing is wrong, but something should not be so or could not be checked."""

    exit_code = UNSURE


@dataclass(frozen=True)
class Examination:
    """A check to run. slow: what to do when it is not done within its deadline."""

    name: str
    look: Callable[[Host], Awaitable[list[Finding]]]
    slow: str
    deadline_s: float = DEADLINE_S


def doctor(args: argparse.Namespace) -> None:
    """Check the host, and the disks that the words name; print what is found.

    Raises Unwell and Unsure, when that is printed; UsageError, InputRefused.
    """
    wanted = disks.wanted(args)
    found = asyncio.run(_examine(args, wanted))
    if args.json:
        print(json.dumps({"state": _worst(found).value, "checks": list(map(_fields, found))}))
    _complain(found)


def _examinations(wanted: Wanted | None) -> list[Examination]:
    restart = f"systemctl restart {libvirt_units()}"
    see = "see the host's load, and try again"
    found = [
        Examination("configuration", doctor_host.configuration, see),
        Examination("daemon", doctor_host.daemon, "systemctl restart vdsm-cinderd"),
        Examination("port", doctor_host.port, see),
        Examination("certificates", doctor_host.certificates, restart),
        Examination("libvirt", libvirt.libvirt, restart),
        Examination("KVM", libvirt.kvm, restart),
        Examination("QEMU", libvirt.qemu, restart),
        Examination("librbd", doctor_host.librbd, see),
        Examination("secrets", libvirt.secrets, restart),
        Examination("preparation", preparation.preparation, restart),
        Examination("autostart", autostart.autostart, restart),
    ]
    if wanted is not None:
        look = functools.partial(disks.disks, asked=wanted)
        see = "see the cluster with 'ceph status'"
        found.append(Examination("disk", look, see, disks.DEADLINE_S))
    return found


async def _examine(args: argparse.Namespace, wanted: Wanted | None) -> list[Finding]:
    settings, origin, trouble = doctor_host.settings_of(args.config)
    is_named = args.socket != Listen.unix_socket
    socket = args.socket if is_named else settings.listen.unix_socket
    # Several checks need it, and each is to have time left when it does not come.
    asking = doctor_host.ask_libvirt(settings.libvirt.uri, 0.7 * min(DEADLINE_S, args.timeout))
    found: list[Finding] = []
    async with Tasks("doctor") as tasks:
        host = Host(settings, origin, trouble, socket, tasks.begin(asking, "libvirt"))
        examinations = _examinations(wanted)
        looks = [tasks.begin(_look(e, host, args.timeout), e.name) for e in examinations]
        for examination, look in zip(examinations, looks):
            await _patiently(examination.name, look)
            found += look.result()
            if not args.json:
                for finding in look.result():
                    print(_line(finding), flush=True)
    return found


async def _look(examination: Examination, host: Host, timeout_s: float) -> list[Finding]:
    check = Check(examination.name)
    deadline_s = min(examination.deadline_s, timeout_s)
    try:
        return await within(examination.look(host), deadline_s)
    except asyncio.TimeoutError:
        return [check.wrong(f"no answer within {deadline_s:g} s", examination.slow)]


async def _patiently(name: str, look: asyncio.Task[list[Finding]]) -> None:
    """Wait for it; tell on stderr what is waited for when that takes long."""
    began, on_terminal = time.monotonic(), sys.stderr.isatty()
    told = ""
    while not (await asyncio.wait({look}, timeout=PATIENCE_S))[0]:
        told = f"… {name}, for {time.monotonic() - began:.0f} s"
        print(
            f"\r{told}" if on_terminal else told, end="" if on_terminal else "\n", file=sys.stderr
        )
        sys.stderr.flush()
    if told and on_terminal:
        print(f"\r{' ' * len(told)}\r", end="", file=sys.stderr, flush=True)


def _line(finding: Finding) -> str:
    """The finding on a line, and what mends it on another, to be copied."""
    state = tables.painted(finding.state.value.ljust(_STATE_WIDTH), COLOURS[finding.state])
    check, message = finding.check.ljust(_CHECK_WIDTH), tables.printable(finding.message)
    line = f"{state}  {check}  {message}"
    if not finding.remedy:
        return line
    indent = " " * (_STATE_WIDTH + 2 + _CHECK_WIDTH + 2)
    return f"{line}\n{indent}{tables.painted('mend:', DIM)} {tables.printable(finding.remedy)}"


def _fields(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "state": finding.state.value,
        "message": finding.message,
        "remedy": finding.remedy,
    }


def _worst(found: Sequence[Finding]) -> State:
    order = list(State)
    return max((finding.state for finding in found), key=order.index)


def _complain(found: Sequence[Finding]) -> None:
    worst = _worst(found)
    if worst is State.OK:
        return
    bad = list(dict.fromkeys(finding.check for finding in found if finding.state is worst))
    told = f"{worst.value}: {', '.join(bad)}"
    raise Unwell(told) if worst is State.WRONG else Unsure(told)
