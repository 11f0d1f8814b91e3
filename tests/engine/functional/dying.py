# SPDX-License-Identifier: GPL-2.0-or-later
"""The program cinder-engine, which kills itself where it is told to.

`python -m tests.engine.functional.dying` in place of cinder-engine. What it is told is in the
directory that the environment names: the file `dies` has a moment and the number of a step, such as
"DID 0"; the file `fails` the name of an action, which then fails when it has done what it is for.
Each is obeyed once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ovirtsdk4 as sdk

from cinderengine.errors import OutsideError
from cinderengine.flows import disks
from cinderengine.jobs import runner
from cinderengine.jobs.actions import Action, Result, Work
from cinderengine.jobs.runner import Moment
from cinderengine.main import main
from cinderengine.model.jobs import Step
from lab.engine_service import EngineService

VARIABLE = "CINDER_ENGINE_TOLD_IN"


PROGRAM = (sys.executable, "-m", "tests.engine.functional.dying")


class Engine(EngineService):
    """An engine that can be told to die."""

    def serve(self) -> None:
        """Serve it, wherever its jobs stand."""
        self.start(PROGRAM, {VARIABLE: str(self.directory)})


def die(engine: Engine, ask: Callable[[], object], moment: Moment, number: int) -> None:
    """Have it killed there while it does what is asked; whoever asks may be left without answer."""
    tell_to_die(engine.directory, moment, number)
    with contextlib.suppress(sdk.Error):
        ask()
    engine.wait_killed()


def tell_to_die(directory: Path, moment: Moment, number: int) -> None:
    """At that moment of a step with that number, whichever comes first."""
    (directory / "dies").write_text(f"{moment.name} {number}")


def tell_to_fail(directory: Path, action: type[Action]) -> None:
    """Once the action has been done."""
    (directory / "fails").write_text(action.name)


def _told(name: str, what: str) -> bool:
    """Whether a file says so; it is gone then."""
    file = Path(os.environ[VARIABLE]) / name
    if not file.exists() or file.read_text() != what:
        return False
    file.unlink()
    return True


def _at(moment: Moment, step: Step) -> None:
    if _told("dies", f"{moment.name} {step.number}"):
        os.kill(os.getpid(), signal.SIGKILL)


class DyingRunner(runner.Runner):
    """Dies where it is told to."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named, at=_at)


def _failing(action: type[Action]) -> None:
    """Let an action fail when it is told to."""
    really = action.do

    async def do(self: Action, work: Work) -> Result:
        result = await really(self, work)
        if _told("fails", self.name):
            raise OutsideError("the test says so; look there")
        return result

    setattr(action, "do", do)  # noqa: B010  mypy lets no method be assigned


if __name__ == "__main__":
    setattr(runner, "Runner", DyingRunner)  # noqa: B010  serve.py imports it when it serves
    for one in disks.ACTIONS:
        _failing(one)
    sys.exit(main())
