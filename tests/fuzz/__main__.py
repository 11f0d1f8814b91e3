# SPDX-License-Identifier: GPL-2.0-or-later
"""`make fuzz`: each target for some minutes, with atheris if it is installed, else hypothesis.

What atheris finds worth keeping goes below build/fuzz; an input that fails is named at the end, and
belongs into tests/fuzz/corpus once the fault is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS

BUILD = Path("build/fuzz")
LONGEST = 8192
# What hypothesis tries in a second, by and large.
EXAMPLES_PER_S = 400


def main() -> int:
    """Fuzz; the exit code tells whether all held."""
    arguments = _parse()
    if importlib.util.find_spec("atheris") is None:
        logging.disable(logging.CRITICAL)
        print("atheris is not installed: pip install -e '.[fuzz]'; hypothesis does what it can")
        for name in arguments.targets or TARGETS:
            _hypothesis(name, arguments.seconds)
        return 0
    failed = [n for n in arguments.targets or TARGETS if not _in_child(n, arguments.seconds)]
    print(f"failed: {', '.join(failed)}" if failed else "all held")
    return bool(failed)


def _in_child(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own, as libFuzzer wants it."""
    found = BUILD / name
    found.mkdir(parents=True, exist_ok=True)
    print(f"--- {name}, {seconds} s", flush=True)
    options = (f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-print_final_stats=1")
    argv = (sys.executable, "-m", "tests.fuzz.one", name, *options)
    places = (f"-artifact_prefix={BUILD}/{name}-", found, CORPUS / name)
    done = subprocess.run([*argv, *places], check=False)
    return done.returncode == 0


def _hypothesis(name: str, seconds: int) -> None:
    @settings(
        max_examples=seconds * EXAMPLES_PER_S,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.sampled_from(pieces(name)) | st.binary(max_size=20), max_size=60))
    def holds(parts: list[bytes]) -> None:
        TARGETS[name](b"".join(parts))

    print(f"--- {name}, {seconds * EXAMPLES_PER_S} examples", flush=True)
    holds()


def pieces(name: str) -> list[bytes]:
    """The corpus of a target in pieces: its lines, and each file as a whole."""
    wholes = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    lines = {line for whole in wholes for line in whole.splitlines(keepends=True)}
    return [*wholes, *sorted(lines)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
