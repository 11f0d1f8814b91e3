# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs and ends processes inside a set of namespaces that goes by the pid of its first process.

The lab is such a set, and so is each hypervisor, whose pid namespace is nested in the lab's: when
the lab's first process ends, all end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base import REPOSITORY, LabError, run, wait_until

# A daemon must not inherit what happens to be set in the shell of the person who starts the lab.
CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def children(pid: int) -> list[int]:
    """The pids of the children of `pid`; none if it has ended."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def pid_inside(pid: int) -> int:
    """The pid that process `pid` has in its own, innermost pid namespace."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise LabError(f"/proc/{pid}/status has no NSpid line: this kernel has no pid namespaces")


def kill_and_wait(pids: Sequence[int]) -> None:
    """Kill processes and return when they have ended; a PID 1 ends after all in its namespace."""
    ends = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGKILL)
    for end in ends:
        if not select.select([end], [], [], 30)[0]:
            raise LabError("processes of the lab did not end within 30 s of being killed")
        os.close(end)


def first_of(unshare: int, program: str = "tini") -> int | None:
    """The pid of the init below an unshare, once it is one: until then the root is being made."""
    inits = (pid for pid in children(unshare) if _name(pid) == program)
    return next(inits, None)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class NamespacedProcess(subprocess.Popen):  # type: ignore[type-arg]
    """A process inside namespaces. Signals go to the process itself, not to the nsenter above it.

    nsenter ends the way its child ended, so `wait` and `returncode` are those of the process, too.
    """

    def send_signal(self, sig: int) -> None:
        while self.poll() is None:
            for child in children(self.pid):
                os.kill(child, sig)
                return
            time.sleep(0.01)  # nsenter is about to fork

    @property
    def pid_outside(self) -> int:
        """The pid of the process itself, as this side sees it."""
        for child in children(self.pid):
            return child
        raise LabError("the process has ended, or not begun")

    def resident_bytes(self) -> int:
        """The process's resident memory as the kernel counts it (proc(5), status, VmRSS)."""
        status = Path(f"/proc/{self.pid_outside}/status").read_text().splitlines()
        line = next(line for line in status if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Namespace:
    """The namespaces of `pid`, which is PID 1 in there; `kinds` are nsenter's names for them."""

    pid: int
    kinds: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The root directory of the namespaces as it is reached from outside."""
        return Path(f"/proc/{self.pid}/root")

    def enter(self, argv: Sequence[object]) -> list[str]:
        """The command line that runs `argv` inside; it dies with the nsenter in front of it."""
        here = Path.cwd()
        directory = here if here == REPOSITORY or REPOSITORY in here.parents else Path("/")
        kinds = [f"--{kind}" for kind in self.kinds]
        # --root: the first process may live in a chroot, which setns alone would leave.
        nsenter = ["nsenter", f"--target={self.pid}", *kinds, "--root", f"--wdns={directory}"]
        return [*nsenter, "setpriv", "--pdeathsig=KILL", *(str(word) for word in argv)]

    def run(self, argv: Sequence[object], timeout_s: float = 60, **options: Any) -> str:
        """Run a command inside to its end; its stdout, or LabError with its stderr."""
        return run(self.enter(argv), timeout_s, **{"env": CLEAN_ENVIRONMENT, **options})

    def popen(self, argv: Sequence[object], **options: Any) -> NamespacedProcess:
        """Start a command inside, with the options of subprocess.Popen; the caller ends it."""
        return NamespacedProcess(self.enter(argv), **{"env": CLEAN_ENVIRONMENT, **options})

    def has(self, pid: int) -> bool:
        """Does `pid`, counted inside, run? A zombie does not."""
        try:
            status = (self.root / f"proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return status.rpartition(")")[2].split()[0] not in "ZX"

    def kill(self, pid: int, sig: signal.Signals) -> None:
        """Send a signal to `pid`, counted inside."""
        self.run(["sh", "-c", f"kill -{sig.value} {pid}"])

    def freeze(self, pid: int) -> None:
        """Stop `pid`, counted inside, where it stands; returns when all of its threads have."""
        self.kill(pid, signal.SIGSTOP)
        wait_until(lambda: self._states(pid) == {"T"}, f"process {pid} to be frozen", 10)

    def _states(self, pid: int) -> set[str]:
        stats = (self.root / f"proc/{pid}/task").glob("*/stat")
        return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}

    def end(self, pid: int, sig: signal.Signals, timeout_s: float = 30) -> None:
        """Send a signal to `pid`, counted inside, and return when it has ended."""
        self.kill(pid, sig)
        wait_until(lambda: not self.has(pid), f"process {pid} to end after {sig.name}", timeout_s)
