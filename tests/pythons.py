# SPDX-License-Identifier: GPL-2.0-or-later
"""`make unit-pythons`: the unit tests on each Python that hosts have, against the bundled packages.

For each version there is an environment below build/, in which packages out of build/bundled stand
in place of what pip would install, as on a host. The system's own Python uses the distribution's
packages, as hosts do. For others those come from PyPI; libvirt's and systemd's bindings are built.
Ceph's are not to be had there, so tests that need them run on the system's Python alone.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLED = REPOSITORY / "build" / "bundled"
RETRY = REPOSITORY / "packaging" / "retry"
SYSTEM = Path("/usr/bin/python3")
# What distributions carry, of which pip brings the newest that an interpreter takes.
DISTRIBUTED = ("cryptography", "jsonschema", "lxml", "pyyaml", "systemd-python")
# Fails unless every bundled package is taken from where it lies.
CHECK = """
import importlib.util, pathlib, sys
bundled = pathlib.Path(sys.argv[1])
names = {path.stem for path in bundled.iterdir() if path.suffix != ".dist-info"} - {"__pycache__"}
for name in sorted(names):
    found = pathlib.Path(importlib.util.find_spec(name).origin)
    assert bundled in found.parents, f"{name} is taken from {found}, and not from {bundled}"
"""


def main(versions: Sequence[str]) -> int:
    """Test on each of the versions that is found; 0 if all did well, and there was one."""
    told, codes = [], []
    for version in versions:
        interpreter = find(version)
        if interpreter is None:
            told.append(f"Python {version} was left out: neither the system nor pyenv has it")
            continue
        print(f"=== Python {version}, {interpreter}", flush=True)
        codes.append(test(environment(version, interpreter)))
        outcome = "failed" if codes[-1] else "went well"
        told.append(f"Python {version} {outcome}, {interpreter}")
    print("\n".join(["=== all Pythons", *told]))
    return 1 if any(codes) or not codes else 0


def find(version: str) -> Path | None:
    """The interpreter of a version ('3.9'): the system's own, or the newest of pyenv's."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return SYSTEM
    known = shutil.which(f"python{version}", path="/usr/local/bin:/usr/bin")
    if known is not None:
        return Path(known)
    releases = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    newest = sorted(releases, key=lambda path: int(path.parts[-3].rpartition(".")[2]))
    return newest[-1] if newest else None


def environment(version: str, interpreter: Path) -> Path:
    """The Python of an environment for the tests, made anew if what it is made of has changed."""
    wanted = requirements(interpreter)
    directory = REPOSITORY / "build" / f"python-{version}"
    python, ready = directory / "bin" / "python", directory / ".ready"
    made_of = "\n".join([str(interpreter), *wanted])
    if not ready.exists() or ready.read_text() != made_of:
        print(f"environment in {directory.relative_to(REPOSITORY)}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        own = ["--system-site-packages"] if interpreter == SYSTEM else []
        run([interpreter, "-m", "venv", *own, directory])
        pip = [str(RETRY), str(python), "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--use-pep517", "--prefer-binary"]
        run([*pip, *wanted])
        site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        # In front of all else, as packaging/launcher.in has it; and once, though the file may be
        # read twice: pip cuts off its own environments what the second reading adds.
        first = f"p for p in {[str(REPOSITORY), str(BUNDLED)]} if p not in sys.path"
        (Path(site.strip()) / "bundled.pth").write_text(f"import sys; sys.path[:0] = [{first}]\n")
        ready.write_text(made_of)
    run([python, "-c", CHECK, BUNDLED])
    return python


def requirements(interpreter: Path) -> list[str]:
    """What pip installs: what tests need, and for other Pythons what the distribution has."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    tests = setup["options.extras_require"]["test"].split("\n")
    wanted = [line for line in tests if line]
    if interpreter != SYSTEM:
        libvirt = run(["pkg-config", "--modversion", "libvirt"]).strip()
        wanted += [*DISTRIBUTED, f"libvirt-python=={libvirt}"]
    return wanted


def test(python: Path) -> int:
    """Run the unit tests; the exit code of pytest."""
    cache = f"cache_dir={python.parents[1] / 'pytest_cache'}"
    argv = [str(python), "-m", "pytest", "-n", "2", "--dist", "worksteal"]
    argv += ["-o", cache, "tests/unit"]
    return subprocess.run(argv, cwd=REPOSITORY, check=False).returncode


def run(argv: Sequence[str | Path]) -> str:
    """Run a command that has to succeed; what it prints."""
    return subprocess.run(
        argv, cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
