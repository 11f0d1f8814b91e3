# SPDX-License-Identifier: GPL-2.0-or-later
"""All that the lab takes from the network, into its cache: nothing is fetched while it runs.

`python -m lab fetch`; where all is there it takes no time.
"""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

from lab import debs
from lab.base import CACHE_DIR, LabError, run
from lab.cinder import keystone, server
from lab.guest import programs
from lab.guest.image import KERNELS, Guest, build_guest
from lab.steps import Steps

CINDER_LIST = Path(__file__).with_name("packages-cinder.txt")
KEYSTONE_LIST = Path(__file__).with_name("packages-keystone.txt")


def fetch(steps: Steps, *, with_cinder: bool) -> Guest:
    """Fetch what is not there yet, and make the guest of it; LabError if something does not come.

    Other labs that are starting are waited for.
    """
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with (CACHE_DIR / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with steps.step("guest: kernel, initramfs, boot image") as step:
            if not any(CACHE_DIR.glob(KERNELS)):
                kernel = _kernel_package()
                debs.fetch(CACHE_DIR / kernel, [kernel], step)
            debs.fetch(programs.AGENT_TREE, [programs.AGENT_PACKAGE], step)
            guest = build_guest(step)
        if with_cinder:
            with steps.step("Cinder's packages") as step:
                for tree, listing in (
                    (server.PACKAGES, CINDER_LIST),
                    (keystone.PACKAGES, KEYSTONE_LIST),
                ):
                    debs.fetch(tree, _names(listing), step, with_dependencies=True)
    return guest


def _kernel_package() -> str:
    """The name of the package that Debian's cloud kernel is now."""
    depends = run(["apt-cache", "depends", "linux-image-cloud-amd64"])
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    if not found:
        raise LabError(
            "apt knows no linux-image-cloud-amd64: add Debian's main archive and run apt-get update"
        )
    return found[1]


def _names(listing: Path) -> list[str]:
    lines = listing.read_text().splitlines()
    return [name for line in lines for name in line.partition("#")[0].split()]
