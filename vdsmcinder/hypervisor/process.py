# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's QEMU process as the kernel knows it: its pid, its age, its end.

libvirt's API tells neither of the first two, and the last late.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# So often is a process looked at that is about to end, in seconds; less and less, for what takes
# longer than a handover is one that has failed.
FIRST_LOOK_S = 0.002
LAST_LOOK_S = 0.25
# Written by libvirt's QEMU driver for each domain that runs.
PID_DIRECTORY = Path("/run/libvirt/qemu")


def qemu_pid(domain_name: str, directory: Path = PID_DIRECTORY) -> int:
    """The pid of the domain's QEMU process, 0 where there is none or it cannot be read."""
    try:
        return int((directory / f"{domain_name}.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def age_s(pid: int) -> float:
    """How long ago the process started, in seconds; 0 for no process (proc(5), stat, starttime)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    ticks_since_boot = int(stat.rpartition(")")[2].split()[19])
    started_s = ticks_since_boot / os.sysconf("SC_CLK_TCK")
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s, 0.0)


def ended(pid: int) -> asyncio.Future[None]:
    """Done at the moment in which the process ends; cancelling it stops watching.

    Already done for a process that is not there. Raises OSError where the kernel does not let it be
    watched, and ValueError for pid 0.
    """
    if pid <= 0:
        raise ValueError("there is no process 0 to watch")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        # Any process may be watched so, whoever it belongs to (pidfd_open(2)).
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        future.set_result(None)
        return future

    def close(_future: asyncio.Future[None]) -> None:
        loop.remove_reader(descriptor)
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def readable() -> None:
        if not future.done():
            future.set_result(None)
        loop.remove_reader(descriptor)

    loop.add_reader(descriptor, readable)
    future.add_done_callback(close)
    return future


def can_run(pid: int) -> bool:
    """Whether the process can execute another instruction of its own, as far as can be seen.

    False comes before ended(): a process that ends lets go of its memory thread by thread, and it
    has ended when all of that is given back, which takes long where there is much. A thread that
    has let go of it is never in user space or in its guest again (proc(5), statm).
    """
    # Twice, for the list of threads is not read at one moment.
    return _has_memory(pid) or _has_memory(pid)


async def cannot_run(pid: int) -> None:
    """Return when can_run() says no.

    It looks every 2 ms at first, in a thread of its own, which ends when this is cancelled.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(1, thread_name_prefix="QEMU's end")
    try:
        await asyncio.get_running_loop().run_in_executor(pool, _watch, pid, stop)
    finally:
        stop.set()
        pool.shutdown(wait=False)


def _watch(pid: int, stop: threading.Event) -> None:
    pause_s = FIRST_LOOK_S
    while can_run(pid) and not stop.wait(pause_s):
        pause_s = min(pause_s * 1.05, LAST_LOOK_S)


def _has_memory(pid: int) -> bool:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        # It has ended, or /proc hides it from us: ended() tells which.
        return True
    return any(_thread_has_memory(pid, thread) for thread in threads)


def _thread_has_memory(pid: int, thread: str) -> bool:
    try:
        pages = Path(f"/proc/{pid}/task/{thread}/statm").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    return not pages.startswith(b"0 ")
