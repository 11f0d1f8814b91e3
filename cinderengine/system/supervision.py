# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is told: that the engine is ready, how it is, that its loop still turns.

By datagrams, as sd_notify(3) has it; without systemd above it nothing is said.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# How old the status line can get; a watchdog may want to hear from us more often.
INTERVAL_S = 5.0
# Two messages may come late or get lost before the watchdog bites.
MESSAGES_PER_TIMEOUT = 3


class Supervision:
    """Keeps the service manager informed. status: asked for what `systemctl status` shows."""

    def __init__(self, status: Callable[[], str]) -> None:
        self._status = status
        self._reporter: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """Say that clients are served, and report from now on."""
        notify("READY=1")
        self._reporter = asyncio.create_task(self._report(), name="report")

    def reloading(self) -> None:
        """Say that the configuration is being read again; reloaded() comes after it."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Say that what could be read again is in force."""
        notify("READY=1")

    async def stopping(self) -> None:
        """Say that the end has begun."""
        if self._reporter is not None:
            self._reporter.cancel()
            await asyncio.gather(self._reporter, return_exceptions=True)
        notify("STOPPING=1\nSTATUS=Stopping; hosts and their VMs run on")

    async def _report(self) -> None:
        # On the loop on purpose: a loop that is stuck feeds no watchdog.
        while True:
            notify(f"WATCHDOG=1\nSTATUS={self._status()}")
            await asyncio.sleep(interval_s())


def end_at_the_latest(within_s: float) -> None:
    """End the process when that time is over, whatever it waits for then.

    A thread that waits for Cinder or for a disk cannot be interrupted. What it was doing is in the
    database, and the next process goes on with it.
    """

    def end() -> None:
        names = ", ".join(thread.name for thread in threading.enumerate() if not thread.daemon)
        log.warning("the end took %g s, and is not waited for any more: %s", within_s, names)
        os._exit(0)

    timer = threading.Timer(within_s, end)
    timer.daemon = True
    timer.start()


def interval_s() -> float:
    """The pause between two reports, in seconds, as the watchdog of this process wants it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return INTERVAL_S
    timeout_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    return min(timeout_s / MESSAGES_PER_TIMEOUT, INTERVAL_S) if timeout_s else INTERVAL_S


def notify(state: str) -> None:
    """Send to the service manager; one that has gone is no reason to end."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name in the abstract namespace is written with @ for its first byte.
    where = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as plain:
            plain.sendto(state.encode(), where)
    except OSError as e:
        log.warning("the service manager could not be told %s: %s", state.partition("\n")[0], e)
