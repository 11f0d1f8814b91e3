# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages, fetched and unpacked into the lab's cache: the machine itself is left as it is.

What the guest and Cinder are made of. Cinder's own dependencies are some 180 packages, 40 MB to
fetch and 280 MB on the disk: installing them would change what every other Python program here
finds, and start an iSCSI daemon.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lab.base import LabError, run
from lab.steps import Step

# Before what has not come is asked for again, in seconds.
PAUSES_S = (1, 2, 4, 8, 16)
TIMEOUT_S = 600


def fetch(
    directory: Path, packages: Sequence[str], step: Step, *, with_dependencies: bool = False
) -> None:
    """Make `directory`, with what these packages hold; any version that is there will do.

    What has come is kept when the rest does not: the next call asks only for that. LabError names
    the packages that did not come.
    """
    if directory.exists():
        return
    archives = directory.with_name(f"{directory.name}.archives")
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    if with_dependencies:
        # Nothing is installed, so that nobody else's installing has to be waited for.
        options = ["--yes", "--no-install-recommends", "--download-only"]
        places = ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
        command = ["apt-get", "--quiet", *options, *places, "install", *packages]
    else:
        command = ["apt-get", "--quiet", "download", *packages]
    step.progress(f"fetching {', '.join(packages)}")
    _persist(command, archives, step)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        _unpack(archives, Path(scratch) / "tree", step)
        (Path(scratch) / "tree").rename(directory)
    shutil.rmtree(archives)


def _persist(command: Sequence[str], directory: Path, step: Step) -> None:
    """Run apt-get in a directory until all has come; it keeps there what has."""
    for pause_s in (*PAUSES_S, None):
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            return
        failed = re.findall(r"Failed to fetch \S*/(\S+)", done.stderr)
        # Without such a file it is not the network: another try would say the same.
        if not failed or pause_s is None:
            said = " ".join(done.stderr.split())
            names = f"{', '.join(failed)} did not come: " if failed else ""
            raise LabError(f"{names}{command[0]} says {said[-400:]}; 'apt-get update' may help")
        step.progress(f"asking again for {', '.join(failed)}")
        time.sleep(pause_s)


def _unpack(archives: Path, tree: Path, step: Step) -> None:
    found = sorted(archives.glob("*.deb"))
    for number, archive in enumerate(found, start=1):
        step.progress(f"unpacking {number} of {len(found)} packages")
        run(["dpkg-deb", "--extract", archive, tree])
