# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the lab's guest that are not busybox's: QEMU's guest agent and mkfs.ext4.

They come with the libraries that the dynamic linker names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lab.base import CACHE_DIR, LabError, run

AGENT_PACKAGE = "qemu-guest-agent"
# Not installed, for the machine is nobody's guest.
AGENT_TREE = CACHE_DIR / AGENT_PACKAGE
MKE2FS = Path("/sbin/mke2fs")


def add_programs(root: Path, agent: Path) -> None:
    """Copy the programs into /bin of the guest's root, and their libraries to their places."""
    # mke2fs makes what its name says; under its own name busybox's shell would take its own.
    for name, program in {"qemu-ga": agent, "mkfs.ext4": MKE2FS}.items():
        shutil.copy(program, root / "bin" / name)
        for library in _libraries(program):
            copy = root / str(library).lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, copy)


def _libraries(program: Path) -> list[Path]:
    listed = run(["ldd", program])
    missing = re.findall(r"(\S+) => not found", listed)
    if missing:
        raise LabError(f"{program.name} needs {', '.join(missing)}: see lab/packages.txt")
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
