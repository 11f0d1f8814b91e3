# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what a guest of the lab says on its serial console, and gives it commands there.

Which commands there are says lab/guest/files/init, which the guest runs.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from pathlib import Path
from typing import Protocol

from lab.base import LabError, wait_until


class Wire(Protocol):
    """The two directions of a serial console."""

    def read(self) -> bytes:
        """What came since the last call, perhaps nothing; never blocks."""

    def write(self, data: bytes) -> None:
        """Send to the guest."""

    def arrived(self) -> None:
        """Told when the guest has what was written."""

    def close(self) -> None:
        """Let go of the console."""


class SocketWire:
    """A serial port that QEMU offers as a unix socket and virtlogd writes to a log file.

    The log has everything from the first byte on, whether somebody was connected or not. The socket
    is held only while there is something to send: who holds it and does not read stalls the guest.
    """

    def __init__(self, log: Path, path: Path) -> None:
        self._log = log
        self._path = path
        self._offset = 0
        self._socket: socket.socket | None = None

    def read(self) -> bytes:
        if self._socket is not None:
            self._drain(self._socket)
        if not self._log.exists():
            return b""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
        self._offset += len(data)
        return data

    def write(self, data: bytes) -> None:
        self.close()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self._path))
        self._socket.sendall(data)
        self._socket.setblocking(False)

    def arrived(self) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _drain(connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                pass
        except (BlockingIOError, ConnectionResetError):
            return


class PtyWire:
    """A serial port that QEMU offers as a pty; what was said before it was opened is lost."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def read(self) -> bytes:
        try:
            return os.read(self._fd, 65536)
        except (BlockingIOError, OSError):  # EIO: QEMU has gone
            return b""

    def write(self, data: bytes) -> None:
        os.write(self._fd, data)

    def arrived(self) -> None:
        pass

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class GuestConsole:
    """A guest's serial console, read forwards: a line that `wait_for` passed is not found again.

    One thread may wait for what the guest says while others hear() it.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._lock = threading.Lock()
        self._unread = ""
        self.transcript = ""

    def __enter__(self) -> GuestConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the console."""
        self._wire.close()

    def hear(self) -> None:
        """Take what the guest has said into the transcript; it can be waited for nevertheless."""
        with self._lock:
            self._read()

    def wait_for(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Return the match of a regular expression in the next of the guest's lines that has one.

        It meets the line without its "lab: ". LabError after `timeout_s`, with the last lines.
        """
        try:
            return wait_until(
                lambda: self._find(pattern), f"the guest to say /{pattern}/", timeout_s
            )
        except LabError as error:
            last = " | ".join(self.transcript.splitlines()[-5:]) or "nothing"
            raise LabError(f"{error}; the last that it said: {last}") from None

    def send(self, command: str, timeout_s: float = 60) -> None:
        """Give the guest a command; returns when the guest has it."""
        self._wire.write(f"{command}\n".encode())
        self.wait_for(f"^> {re.escape(command)}$", timeout_s)
        self._wire.arrived()

    def ask(self, command: str, answer: str, timeout_s: float = 60) -> re.Match[str]:
        """Give the guest a command; the match of its answer, or LabError if it says "failed …"."""
        self.send(command, timeout_s)
        match = self.wait_for(f"(?:{answer})|^failed .*", timeout_s)
        if match[0].startswith("failed "):
            raise LabError(f"the guest could not do '{command}': {match[0]}")
        return match

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Return when the guest obeys, also if it said "ready" before this console was opened."""
        wait_until(self._answers, "the guest to answer", timeout_s)

    # What the guest can do, as calls

    def disks(self) -> dict[str, int]:
        """The guest's disks and their sizes in bytes."""
        listed = self.ask("disks", "^disks ?(.*)")[1].split()
        return {name: int(size) for name, size in (entry.split("=") for entry in listed)}

    def write(self, disk: str, offset_mib: int, count_mib: int, seed: str) -> str:
        """Let the guest write lab.guest.pattern(count_mib, seed) to a disk; its SHA-256."""
        command = f"write {disk} {offset_mib} {count_mib} {seed}"
        return self.ask(command, f"^wrote {command[len('write ') :]} (\\w+)$")[1]

    def checksum(self, disk: str, offset_mib: int, count_mib: int) -> str:
        """Let the guest read from a disk; the SHA-256 of what it read."""
        command = f"sum {disk} {offset_mib} {count_mib}"
        return self.ask(command, f"^{command} (\\w+)$")[1]

    def _answers(self) -> bool:
        try:
            return bool(self.ask("ping", "^pong$", 1))
        except (LabError, OSError):
            return False

    def _read(self) -> None:
        fresh = self._wire.read().decode(errors="replace").replace("\r", "")
        self.transcript += fresh
        self._unread += fresh

    def _find(self, pattern: str) -> re.Match[str] | None:
        with self._lock:
            self._read()
            while "\n" in self._unread:
                line, _, self._unread = self._unread.partition("\n")
                said = line.startswith("lab: ")
                match = re.search(pattern, line[len("lab: ") :]) if said else None
                if match:
                    return match
            return None
