# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a key could show, and in which forms: what test_secret_leak.py searches, and how.

Places are collected as bytes by name; `shown` tells which of them hold a piece of a key.
"""

from __future__ import annotations

import array
import base64
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from lab.host.hypervisor import Host

# Of a Ceph key the first 12 bytes are no secret: its type, when it was made, its length.
HEADER_BYTES = 12
HEADER_TEXT = 16
# Long enough that nothing else looks like it, short enough to meet a key that was cut.
PIECE_BYTES = 8
PIECE_TEXT = 12

JOURNAL = "/run/systemd/journal/socket"


def new_key() -> str:
    """A key as `ceph auth get-key` prints it, which no cluster knows."""
    header = bytes.fromhex("0100") + bytes(8) + bytes.fromhex("1000")
    return base64.b64encode(header + os.urandom(16)).decode()


def forms(key: str) -> Mapping[str, Iterator[bytes]]:
    """Pieces of a key's secret part in each form in which it could be written."""
    text, secret = key[HEADER_TEXT:].rstrip("="), base64.b64decode(key)[HEADER_BYTES:]
    again = base64.b64encode(key.encode()).decode()[2 * PIECE_TEXT :]
    return {
        "base64": pieces(text),
        "base64 for URLs": pieces(text.replace("+", "-").replace("/", "_")),
        "URL-encoded": pieces(quote(text, safe="")),
        "with escaped slashes": pieces(text.replace("/", "\\/")),
        "base64 of base64": pieces(again),
        "raw": (secret[i : i + PIECE_BYTES] for i in range(len(secret) - PIECE_BYTES + 1)),
        "hexadecimal": of_bytes(secret, bytes.hex),
        "upper-case hexadecimal": of_bytes(secret, lambda piece: piece.hex().upper()),
        "a bytes literal": of_bytes(secret, lambda piece: repr(piece)[2:-1]),
        "numbers": of_bytes(secret, lambda piece: ", ".join(map(str, piece))),
    }


def pieces(text: str) -> Iterator[bytes]:
    return (text[i : i + PIECE_TEXT].encode() for i in range(len(text) - PIECE_TEXT + 1))


def of_bytes(secret: bytes, write: Callable[[bytes], str]) -> Iterator[bytes]:
    starts = range(len(secret) - PIECE_BYTES + 1)
    return (write(secret[i : i + PIECE_BYTES]).encode() for i in starts)


def shown(key: str, places: Mapping[str, bytes]) -> list[str]:
    """Where a key shows: for each place in which form, and what stands around it."""
    written = {name: list(form) for name, form in forms(key).items()}
    return [
        found
        for place, content in places.items()
        if (found := _first(written, place, content)) is not None
    ]


def _first(written: Mapping[str, list[bytes]], place: str, content: bytes) -> str | None:
    for name, form in written.items():
        at = next((at for piece in form if (at := content.find(piece)) >= 0), None)
        if at is not None:
            return f"{place} holds it as {name}: {content[max(at - 200, 0) : at + 60]!r}"
    return None


class Journal:
    """What a host's processes say to the journal; stands in for journald's socket."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []

    @property
    def content(self) -> bytes:
        """All entries so far, as they came."""
        return b"\n".join(self._entries)

    @contextmanager
    def listening(self, host: Host) -> Iterator[None]:
        path = host.path(JOURNAL)
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(str(path))
            listener = threading.Thread(target=self._listen, args=(ear,))
            listener.start()
            try:
                yield
            finally:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                    last.sendto(b"", str(path))
                listener.join()
                path.unlink()

    def _listen(self, ear: socket.socket) -> None:
        while True:
            data, ancillary, _, _ = ear.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            # A long entry comes as a file (https://systemd.io/JOURNAL_NATIVE_PROTOCOL).
            for _, _, passed in ancillary:
                with os.fdopen(array.array("i", passed)[0], "rb") as file:
                    file.seek(0)
                    data += file.read()
            if not data:
                return
            self._entries.append(data)


def processes(proc: Path) -> dict[str, bytes]:
    """The command line and the environment of every process that a /proc tells of."""
    return {
        f"{file.name} of process {directory.name}": read(file)
        for directory in proc.glob("[0-9]*")
        for file in (directory / "cmdline", directory / "environ")
    }


def files_changed(host: Host, since: Path) -> dict[str, bytes]:
    """The files of a host itself that are newer than `since`."""
    roots = ["/etc", "/root", "/home", "/run", "/tmp", "/dev/shm"]
    roots += [f"/var/{name}" for name in ("lib/libvirt", "lib/systemd", "log", "spool", "tmp")]
    # Named by the caller; and they hold what was logged before.
    elsewhere = ["/var/log/libvirt", host.lab_dir]
    skipped = [word for path in elsewhere for word in ("-path", path, "-prune", "-o")]
    listed = host.run(["find", *roots, *skipped, "-type", "f", "-newer", since, "-print"])
    return {path: read(host.path(path)) for path in listed.splitlines()}


class Directory:
    """The files in a directory and those below it, without what they held before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes = {file: file.stat().st_size for file in self._files()}

    def _files(self) -> list[Path]:
        return [file for file in self._path.rglob("*") if file.is_file()]

    def content(self) -> dict[str, bytes]:
        """What was written to each file since."""
        return {str(file): read(file)[self._sizes.get(file, 0) :] for file in self._files()}


def read(path: Path) -> bytes:
    """What a file holds; nothing if it has gone."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""
