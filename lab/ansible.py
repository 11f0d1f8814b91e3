# SPDX-License-Identifier: GPL-2.0-or-later
"""Ansible and oVirt's collection for it, neither changed: what many drive an engine with.

Of the package ansible, which has hundreds of collections, only oVirt's is kept. What Ansible runs
on is an environment of its own below build/.
"""

from __future__ import annotations

import fcntl
import sys
import tempfile
import zipfile
from pathlib import Path

from lab.base import CACHE_DIR, REPOSITORY, run
from lab.steps import Step

CORE = "ansible-core>=2.19,<2.20"
# The release that is tested with that core.
RELEASE = "ansible>=12,<13"
SDK = "ovirt-engine-sdk-python>=4.6"

# What ANSIBLE_COLLECTIONS_PATH is set to.
COLLECTIONS = CACHE_DIR / "ansible-collections"
ENVIRONMENT = REPOSITORY / "build" / "ansible"
PLAYBOOK = ENVIRONMENT / "bin" / "ansible-playbook"
_FOLDER = "ansible_collections/ovirt/"
_RETRY = REPOSITORY / "packaging" / "retry"
# What the environment was made of.
_MADE_OF = ENVIRONMENT / ".made-of"
_WANTED = f"{CORE} {SDK}\n"
# All that pip and packaging/retry try until they give up.
TIMEOUT_S = 900


def fetch(step: Step) -> None:
    """Fetch what is not there yet; LabError if it does not come. Others are waited for."""
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with (CACHE_DIR / "ansible.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not COLLECTIONS.exists():
            step.progress("fetching oVirt's collection")
            _fetch_collection()
        if not _MADE_OF.exists() or _MADE_OF.read_text() != _WANTED:
            step.progress(f"installing {CORE}")
            _install()


def _fetch_collection() -> None:
    with tempfile.TemporaryDirectory(dir=CACHE_DIR) as scratch:
        _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", scratch, RELEASE)
        (wheel,) = Path(scratch).glob("ansible-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(_FOLDER)]
            archive.extractall(Path(scratch) / "tree", names)
        (Path(scratch) / "tree").rename(COLLECTIONS)


def _install() -> None:
    run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], TIMEOUT_S)
    _pip("install", CORE, SDK, python=ENVIRONMENT / "bin" / "python")
    _MADE_OF.write_text(_WANTED)


def _pip(*arguments: str, python: Path = Path(sys.executable)) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    command, *rest = arguments
    run([_RETRY, python, "-m", "pip", command, *quiet, *rest], TIMEOUT_S)
