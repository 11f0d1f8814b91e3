# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage of a demo: a lab of its own, and what was proven in it.

The play runs in a process of its own inside the lab's network, as an engine does; each step is a
line, and a step that fails is named with its reason.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Callable

from lab.base import REPOSITORY, LabError
from lab.host.daemon import HostDaemon
from lab.lifecycle import down, down_keeping_logs, kept_logs, up
from lab.running import Lab
from lab.steps import Steps
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import NoSuchEvent, SessionLost

DIRECTORY = "/run/vdsm-cinder-demo"


@dataclass(frozen=True)
class Show:
    """A demo. module: the one that main() is called from; opening: its first line.

    play: what is played in the engine's place; returns the lines that tell what it proved. hosts:
    how many there are.
    """

    module: str
    opening: str
    play: Callable[[Lab, Steps], list[str]]
    with_cinder: bool = False
    hosts: int = 1

    def main(self) -> int:
        """Run it; 0 if everything that it shows came true."""
        if sys.argv[1:] == ["play"]:
            return _report(self._play)
        os.environ.setdefault("VDSM_CINDER_LAB_DIR", DIRECTORY)
        return _report(self._stage)

    def _stage(self, steps: Steps) -> int:
        """Start the lab, have the play run inside its network, end the lab."""
        print(self.opening)
        lab = up(self.hosts, steps, with_cinder=self.with_cinder)
        play = [sys.executable, "-m", self.module, "play"]
        code = 1
        try:
            code = subprocess.run(lab.engine_command(play), cwd=REPOSITORY, check=False).returncode
        finally:
            if code == 0:
                with steps.step("the lab ends and leaves nothing"):
                    down()
            else:
                down_keeping_logs()
        return code

    def _play(self, steps: Steps) -> int:
        proven = self.play(Lab.attach(), steps)
        print("\nProven:")
        for line in proven:
            print(f"  {line}")
        return 0


def on_host1(
    play: Callable[[Lab, HostDaemon, Steps], Awaitable[list[str]]],
) -> Callable[[Lab, Steps], list[str]]:
    """A play of an engine that calls the daemon of host1, which runs when the play begins."""

    def whole(lab: Lab, steps: Steps) -> list[str]:
        daemon = HostDaemon(lab.hosts["host1"], lab.pki)
        print("\nThe daemon, and an engine that calls it over STOMP and TLS:")
        with steps.step("vdsm-cinderd starts on host1"):
            daemon.start()
        try:
            proven = asyncio.run(_awaited(play(lab, daemon, steps)))
            with steps.step("the daemon stops"):
                daemon.stop()
        finally:
            if daemon.runs:
                daemon.stop()
        return proven

    return whole


async def _awaited(play: Awaitable[list[str]]) -> list[str]:
    return await play


def _report(act: Callable[[Steps], int]) -> int:
    """Run an act of the demo; a step that fails is named with its reason and the logs."""
    steps = Steps()
    try:
        return act(steps)
    except (LabError, RemoteError, NoSuchEvent, SessionLost, OSError) as e:
        print(f"\nThe demo stopped at '{steps.failed}': {e}.", file=sys.stderr)
        print(f"The logs of all that took part are in {kept_logs()}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
