# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of a host at 127.0.0.1 and of its clients, which openssl makes once for all tests.

Each test has a copy of its own, and may renew, revoke and spoil what is in it.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from lab.pki import Pki, make_pki


def copied_pki(directory: Path) -> Pki:
    """What make_pki() makes for `host`, in a directory that is not there yet."""
    shutil.copytree(Path(_made().name) / "pki", directory)
    return Pki(directory)


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    """Goes with the process."""
    directory = tempfile.TemporaryDirectory(prefix="vdsm-cinder-certificates-")
    make_pki(Path(directory.name) / "pki", {"host": "127.0.0.1"})
    return directory
