# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told about the daemon: that it is ready, how it is, that its loop still turns.

Without systemd above it everything here does nothing (sd_notify(3), sd_watchdog_enabled(3)).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from typing import Callable

from systemd.daemon import notify

from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

# How old the status line can get; a watchdog may want to hear from us more often.
INTERVAL_S = 1.0
# Two messages may come late or get lost before the watchdog bites.
MESSAGES_PER_TIMEOUT = 3


class Supervision:
    """Keeps the service manager informed while the daemon runs.

    status: asked for the line that `systemctl status` shows.
    """

    def __init__(self, status: Callable[[], str], tasks: Tasks) -> None:
        self._status = status
        self._interval_s = interval_s()
        # Given up for a message when no other file descriptor is left: a daemon that has too many
        # clients still turns, and a restart would cut off all of them.
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # Why the last report did not get through: told once, not with every report.
        self._unheard = ""
        self._tasks = tasks

    def ready(self) -> None:
        """Say that clients are served, and report from now on."""
        _tell("READY=1")
        self._tasks.spawn(self._report(), "report")

    def reloading(self) -> None:
        """Say that the configuration is being read again; reloaded() comes after it."""
        _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Say that what could be read again is in force."""
        _tell("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun; only close() comes after it."""
        self._tasks.end()
        _tell("STOPPING=1\nSTATUS=Stopping; the VMs run on")

    async def close(self) -> None:
        """Return when nothing of it is left."""
        await self._tasks.close()
        self._give_up_spare()

    async def _report(self) -> None:
        # On the loop on purpose: a loop that is stuck feeds no watchdog.
        while True:
            self._tell_at_any_price(f"WATCHDOG=1\nSTATUS={self._status()}")
            await asyncio.sleep(self._interval_s)

    def _tell_at_any_price(self, state: str) -> None:
        try:
            notify(state)
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                if self._unheard != str(e):
                    _log_failure(state, e)
                self._unheard = str(e)
                return
            self._give_up_spare()
            _tell(state)
        self._unheard = ""
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def interval_s() -> float:
    """The pause between two reports, in seconds, as the watchdog of this process wants it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return INTERVAL_S
    timeout_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    return min(timeout_s / MESSAGES_PER_TIMEOUT, INTERVAL_S) if timeout_s else INTERVAL_S


def _tell(state: str) -> None:
    """Send to the service manager (sd_notify(3)); one that has gone is no reason to end."""
    try:
        notify(state)
    except OSError as e:
        _log_failure(state, e)


def _log_failure(state: str, error: OSError) -> None:
    log.warning("the service manager could not be told %s: %s", state.partition("\n")[0], error)
