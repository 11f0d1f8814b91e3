# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the one-value files of /proc and /sys, where absence is an answer and not an error.

A file that is missing, or that its driver refuses to read, gives the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def text(path: Path, default: str = "") -> str:
    """What the file holds, without the white space around it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return default


def root_text(path: Path) -> str:
    """What a file holds that only root may read: for another user, what systemd's copy holds.

    Our unit has systemd copy such files (LoadCredential=, systemd.exec(5)), each under its name.
    """
    copies = os.environ.get("CREDENTIALS_DIRECTORY")
    return text(path) or (text(Path(copies) / path.name) if copies else "")


def number(path: Path, default: int = 0) -> int:
    """The whole number that the file holds."""
    try:
        return int(text(path))
    except ValueError:
        return default


def choice(path: Path, default: str) -> str:
    """The chosen word of a file such as 'always [madvise] never'."""
    for word in text(path).split():
        if word.startswith("["):
            return word.strip("[]")
    return default


def numbered(folder: Path, prefix: str) -> Iterator[tuple[int, Path]]:
    """The entries of a folder that are named prefix and a number, by that number."""
    found = []
    for path in folder.glob(f"{prefix}[0-9]*"):
        suffix = path.name[len(prefix) :]
        if suffix.isdigit():
            found.append((int(suffix), path))
    return iter(sorted(found))


def cpu_list(listing: str) -> list[int]:
    """The numbers of a list such as '0-3,8', as the kernel writes sets of processors."""
    numbers: list[int] = []
    for part in listing.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def key_values(content: str, separator: str = "=") -> dict[str, str]:
    """The pairs of a file with one 'key=value' a line; quotes around a value are taken off."""
    pairs = (line.split(separator, 1) for line in content.splitlines() if separator in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}
