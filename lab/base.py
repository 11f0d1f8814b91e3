# SPDX-License-Identifier: GPL-2.0-or-later
"""What every module of the lab shares: its error, its places, running a command, waiting.

A command that fails raises LabError with what it printed; times are in seconds.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE_DIR = Path("/var/cache/vdsm-cinder-lab")
PREFIX = "10.77.0"
ENGINE_ADDRESS = f"{PREFIX}.1"


class LabError(Exception):
    """The lab could not do what was asked; the text is one sentence for a person."""


def lab_dir() -> Path:
    """The directory that the engine's side and all hosts see under the same path."""
    return Path(os.environ.get("VDSM_CINDER_LAB_DIR", "/run/vdsm-cinder-lab"))


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float) -> T:
    """Ask `condition` every 20 ms and return its first true value; LabError after `timeout_s`.

    For what can only be looked at, such as a file or someone else's process. `what` completes
    "waited 5 s for …".
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s for {what} in vain")
        time.sleep(0.02)


def run(argv: Sequence[object], timeout_s: float = 60, **options: Any) -> str:
    """Run a command to its end and return its stdout; LabError with its stderr if it fails."""
    words = [str(word) for word in argv]
    options = {"text": True, "capture_output": True, **options}
    try:
        done = subprocess.run(words, check=True, timeout=timeout_s, **options)
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not installed: see lab/packages.txt") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"'{' '.join(words)}' was not done after {timeout_s:g} s") from None
    except subprocess.CalledProcessError as failed:
        said = " ".join((failed.stderr or failed.stdout or "it said nothing").split())
        raise LabError(f"'{' '.join(words)}' failed ({failed.returncode}): {said[-800:]}") from None
    return str(done.stdout)
