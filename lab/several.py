# SPDX-License-Identifier: GPL-2.0-or-later
"""Several labs side by side, for tests that are spread over them: each worker has one of its own.

`python -m lab run --labs N` starts them at once, names them to its command in the environment, and
ends them after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.base import LabError, lab_dir
from lab.steps import Steps

# The directories of all labs of a run, separated by colons.
VARIABLE = "VDSM_CINDER_LAB_DIRS"


def directories() -> list[Path]:
    """The directories of the labs that this process was started for; none if it has only one."""
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(":") if path]


def run_in(lab_count: int, host_count: int, argv: Sequence[str], steps: Steps) -> int:
    """Run a command with so many labs of so many hosts; its exit code, or LabError."""
    all_directories = [Path(f"{lab_dir()}-{number + 1}") for number in range(lab_count)]
    started: list[Path] = []
    code = 1
    try:
        with steps.step(f"{lab_count} labs: each a Ceph, and {host_count} hypervisors"):
            _start(all_directories, host_count, started)
        environment = {**os.environ, VARIABLE: ":".join(map(str, all_directories))}
        code = subprocess.run(argv, env=environment, check=False).returncode
    finally:
        for directory in started:
            with _lab(directory, "down", *([] if code == 0 else ["--keep-logs"])) as ending:
                said, _ = ending.communicate()
                if code != 0:
                    print(said, end="", file=sys.stderr)
    return code


def _start(directories: Sequence[Path], host_count: int, started: list[Path]) -> None:
    """Start labs at once; `started` gets those that run, also if others fail."""
    starting = {d: _lab(d, "up", "--hosts", str(host_count)) for d in directories}
    try:
        said = [one.communicate()[0] for one in starting.values()]
    finally:
        for directory, one in starting.items():
            # One that is interrupted cleans up.
            one.terminate()
            if one.wait() == 0:
                started.append(directory)
    for one, last_words in zip(starting.values(), said):
        if one.returncode:
            words = last_words.strip().splitlines()[-1]
            raise LabError(words.removeprefix("lab: ").rstrip("."))


def _lab(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "VDSM_CINDER_LAB_DIR": str(directory)}
    command = [sys.executable, "-m", "lab", *arguments]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
