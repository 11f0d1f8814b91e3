# SPDX-License-Identifier: GPL-2.0-or-later
"""A service of OpenStack's in the lab: a Python program whose packages are only unpacked.

It runs below the lab's first process until the lab ends, and makes a file once it serves.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.base import LabError, wait_until
from lab.namespace import CLEAN_ENVIRONMENT, Namespace
from lab.steps import Step

MODULES = "usr/lib/python3/dist-packages"
PYTHON = "/usr/bin/python3"
START_TIMEOUT_S = 120


@dataclass(frozen=True)
class Program:
    """name: the service's. script: called with its configuration's path and that of the file to
    make. packages: where lab.fetching has unpacked what it imports. state: its directory.
    """

    name: str
    namespace: Namespace
    script: Path
    packages: Path
    state: Path
    log: Path

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self._started.exists() and self._lives()

    def start(self, step: Step, files: dict[str, str], configuration: str) -> None:
        """Write its files and start it; returns when it serves.

        files: their texts by their names in `state`; configuration: the name of one of them.
        """
        if not self.packages.exists():
            raise LabError(
                f"{self.name}'s packages have not been fetched: run 'python -m lab fetch'"
            )
        self.state.mkdir(exist_ok=True)
        for name, text in files.items():
            (self.state / name).write_text(text)
        step.progress("starting")
        self._started.unlink(missing_ok=True)
        self._launch(self.state / configuration)
        wait_until(self._is_up, f"{self.name} to serve", START_TIMEOUT_S)

    @property
    def _started(self) -> Path:
        return self.state / "started"

    @property
    def _pid_file(self) -> Path:
        return self.state / "pid"

    @property
    def _output(self) -> Path:
        return self.log.with_suffix(".out")

    def _launch(self, configuration: Path) -> None:
        # -P: what is next to the script has names of the services' own.
        program = (PYTHON, "-P", self.script, configuration, self._started)
        command = shlex.join(str(word) for word in program)
        output = shlex.quote(str(self._output))
        # In the background of a shell that ends at once: the lab's PID 1 becomes the parent.
        background = f"setsid {command} >{output} 2>&1 </dev/null & echo $!"
        environment = {**CLEAN_ENVIRONMENT, "PYTHONPATH": str(self.packages / MODULES)}
        self._pid_file.write_text(self.namespace.run(["sh", "-c", background], env=environment))

    def _lives(self) -> bool:
        return self._pid_file.exists() and self.namespace.has(int(self._pid_file.read_text()))

    def _is_up(self) -> bool:
        if not self._lives():
            said = self._output.read_text().strip().splitlines() or ["it said nothing"]
            raise LabError(f"{self.name} ended while it started: {said[-1]}; see {self.log}")
        return self._started.exists()
