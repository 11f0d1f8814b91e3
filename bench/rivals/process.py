# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts the rivals that are processes: modules of this package, on one of the lab's hosts.

Each says READY on its stdout, and is killed when it has been measured.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.base import REPOSITORY, LabError
from lab.host.hypervisor import Host
from lab.namespace import NamespacedProcess


@contextmanager
def rival(host: Host, module: str, *arguments: object) -> Iterator[NamespacedProcess]:
    """A module that runs while the body does, from its word READY on."""
    argv = [sys.executable, "-m", module, *arguments]
    with host.popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"READY\n":
                raise LabError(f"{module} did not come up")
            yield process
        finally:
            process.kill()
