# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Ceph cluster and real hypervisors on one machine, for tests, demo and benchmarks.

`python -m lab up` starts it, `lab.Lab.attach()` finds it. Part of the source tree, never installed.
"""

from lab.base import LabError, wait_until
from lab.guest.console import GuestConsole
from lab.guest.domains import console_of, disk_xml, domain_xml, pty_console, secret_xml
from lab.guest.image import pattern, pattern_checksum
from lab.running import Lab

__all__ = [
    "GuestConsole",
    "Lab",
    "LabError",
    "console_of",
    "disk_xml",
    "domain_xml",
    "pattern",
    "pattern_checksum",
    "pty_console",
    "secret_xml",
    "wait_until",
]
