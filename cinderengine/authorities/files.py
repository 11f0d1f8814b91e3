# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of certificates and keys: written whole or not at all, and read.

Raises Unusable, with a sentence for each fault.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cinderengine.errors import EngineError

KEY_MODE = 0o400
CERTIFICATE_MODE = 0o444
DIRECTORY_MODE = 0o700


class Unusable(EngineError):
    """A file of the authorities is missing, or not what it should be."""

    status = 500


@dataclass(frozen=True)
class Draft:
    """A file that is to be written."""

    path: Path
    content: bytes
    mode: int


def read(path: Path) -> bytes:
    """What a file holds."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Unusable(
            f"{path} does not exist; make it with cinder-engine init, or restore it"
        ) from None
    except OSError as e:
        raise Unusable(f"{path} cannot be read: {e.strerror}; let the engine's user read it") from e


def write(drafts: Sequence[Draft], *, replace: bool = True) -> None:
    """Write all files, in this order; each comes into its place complete, when all are on the disk.

    replace: one that is there is replaced, else it stays and nothing more is written.
    """
    staged: list[tuple[Path, Draft]] = []
    try:
        for draft in drafts:
            draft.path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            staged.append((_stage(draft), draft))
        for temporary, draft in staged:
            if replace:
                os.replace(temporary, draft.path)
            else:
                # Unlike a rename it fails where somebody else was quicker.
                os.link(temporary, draft.path)
    except OSError as e:
        where = e.filename2 or e.filename or drafts[0].path.parent
        raise Unusable(f"{where} cannot be written: {e.strerror}; look after that") from e
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    for directory in {draft.path.parent for draft in drafts}:
        _sync(directory)


def _stage(draft: Draft) -> Path:
    """The draft as a complete file with a name of its own, beside its place."""
    temporary = draft.path.with_name(f".{draft.path.name}.{secrets.token_hex(4)}")
    # Nobody else may open it before it has its mode.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            os.fchmod(handle, draft.mode)
            file.write(draft.content)
            file.flush()
            os.fsync(handle)
    except BaseException:
        temporary.unlink()
        raise
    return temporary


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
