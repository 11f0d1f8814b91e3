# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that outlives the daemon without touching a disk: systemd's file-descriptor store.

What is kept is a memfd that nobody can change any more, which systemd holds from one run of the
daemon to the next and hands over with the sockets (sd_pid_notify_with_fds(3),
FileDescriptorStoreMax= in systemd.service(5)).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import Mapping

from systemd.daemon import notify

from vdsmcinder.tasks import within

log = logging.getLogger(__name__)

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# systemd has taken what it was sent when it closes its end of a pipe (sd_notify_barrier(3)).
BARRIER_TIMEOUT_S = 5.0
# Of memfd_create(2), since Linux 6.3; Python has no name for it yet.
_MFD_NOEXEC_SEAL = 0x0008


class FdStore:
    """One piece of content that systemd keeps between two runs of the daemon.

    stored: what it handed over, by name.

    Each version goes by a name of its own, and the one before is dropped once systemd has the new
    one: at every moment there is a whole one. trouble: why the content would be lost with this
    process; empty if it would not, and where no systemd started it, which is not a fault.
    """

    def __init__(self, name: str, stored: Mapping[str, int]) -> None:
        self.trouble = ""
        self._name = name
        self._lock = asyncio.Lock()
        # Others than systemd have sockets for notifications too, and keep nothing.
        self._kept = {"NOTIFY_SOCKET", "INVOCATION_ID"} <= set(os.environ)
        self._handed = _versions(name, stored)
        self._version = max(self._handed, default=0)
        self._stale = {version_name(name, version) for version in self._handed}

    @property
    def available(self) -> bool:
        """Whether a systemd started this process that may keep something for it."""
        return self._kept

    def read(self) -> bytes | None:
        """The newest content that the process before this one left; None if it left none.

        To be called once: it lets go of the memory.
        """
        content = None
        for _, fd in sorted(self._handed.items()):
            with os.fdopen(fd, "rb") as file:
                if _is_sealed(fd):
                    file.seek(0)
                    content = file.read()
        self._handed.clear()
        return content

    async def write(self, content: bytes) -> str:
        """Have systemd keep this in place of what it keeps; returns when it does.

        No content: it keeps nothing any more. Never raises: gives the trouble, empty for none.
        """
        if not self._kept:
            return ""
        async with self._lock:
            try:
                await self._replace(content)
                self.trouble = ""
            # First: it is an OSError, too, from Python 3.11 on.
            except asyncio.TimeoutError:
                self.trouble = f"systemd did not take them within {BARRIER_TIMEOUT_S:g} s"
            except OSError as e:
                self.trouble = f"systemd could not be given them to keep ({e.strerror or e})"
            trouble = self.trouble
        if trouble:
            log.error("the keys would be lost with this process: %s", trouble)
        return trouble

    async def _replace(self, content: bytes) -> None:
        stale, fresh = set(self._stale), ""
        if content:
            self._version += 1
            fresh = version_name(self._name, self._version)
            self._stale.add(fresh)
            fd = sealed(fresh, content)
            try:
                _send(f"FDSTORE=1\nFDNAME={fresh}", fd)
            finally:
                os.close(fd)
        for name in stale:
            _send(f"FDSTOREREMOVE=1\nFDNAME={name}")
        await _barrier()
        self._stale -= stale


def version_name(name: str, version: int) -> str:
    """What one version of the content is called in the store."""
    return f"{name}-{version}"


def sealed(name: str, content: bytes) -> int:
    """A file in memory with this content, which can only be read from now on."""
    fd = _memfd(name)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_sealed(fd: int) -> bool:
    """Whether it is a file in memory that was complete."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:
        return False


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def _versions(name: str, stored: Mapping[str, int]) -> dict[int, int]:
    """The versions of the content that were handed over, and their file descriptors."""
    found = {}
    for given, fd in stored.items():
        prefix, _, version = given.rpartition("-")
        if prefix == name and version.isdigit():
            found[int(version)] = fd
    return found


def _send(message: str, *fds: int) -> None:
    if fds:
        notify(message, fds=list(fds))
    else:
        notify(message)


async def _barrier() -> None:
    """Return when systemd has worked off all that it was sent so far."""
    loop, reached = asyncio.get_running_loop(), asyncio.Event()
    near, far = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            _send("BARRIER=1", far)
        finally:
            os.close(far)
        loop.add_reader(near, reached.set)
        try:
            await within(reached.wait(), BARRIER_TIMEOUT_S)
        finally:
            loop.remove_reader(near)
    finally:
        os.close(near)
