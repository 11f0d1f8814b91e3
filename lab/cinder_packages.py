# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's Cinder, fetched and unpacked into the lab's cache: the machine itself is left as it is.

lab/cinder.py runs it from there. Some 180 packages, 40 MB to fetch and 280 MB on the disk, which
are Cinder's own dependencies: installing them would change what every other Python program here
finds, and start an iSCSI daemon.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from lab.base import CACHE_DIR, LabError, run
from lab.steps import Step

LIST = Path(__file__).with_name("packages-cinder.txt")
UNPACKED = CACHE_DIR / "cinder"


def fetch(step: Step) -> Path:
    """The directory of Cinder's Python packages; any version that is there will do."""
    if not UNPACKED.exists():
        CACHE_DIR.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE_DIR) as scratch:
            _download(Path(scratch), step)
            _unpack(Path(scratch), step)
            (Path(scratch) / "root").rename(UNPACKED)
    return UNPACKED / "usr/lib/python3/dist-packages"


def _download(directory: Path, step: Step) -> None:
    names = [
        name for line in LIST.read_text().splitlines() for name in line.partition("#")[0].split()
    ]
    step.progress(f"fetching {', '.join(names)} and what it depends on")
    (directory / "partial").mkdir()
    options = ["--yes", "--quiet", "--no-install-recommends", "--download-only"]
    # Two hundred files are many: one that does not come at once is asked for again.
    options += ["-o", "Acquire::Retries=5"]
    # Nothing is installed, so nobody else's installing has to be waited for.
    places = ["-o", f"Dir::Cache::archives={directory}", "-o", "Debug::NoLocking=1"]
    try:
        run(["apt-get", *options, *places, "install", *names], timeout_s=600)
    except LabError as error:
        raise LabError(f"{error}: 'apt-get update' may help") from None


def _unpack(directory: Path, step: Step) -> None:
    archives = sorted(directory.glob("*.deb"))
    for number, archive in enumerate(archives, start=1):
        step.progress(f"unpacking {number} of {len(archives)} packages")
        run(["dpkg-deb", "--extract", archive, directory / "root"])
