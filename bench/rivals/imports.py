# SPDX-License-Identifier: GPL-2.0-or-later
"""A rival of bench/footprint.py: a Python process that has the two libraries and does nothing.

No daemon that speaks to libvirt and writes XML can be smaller, or be there sooner.
"""

import signal

import libvirt  # noqa: F401
from lxml import etree  # noqa: F401

print("READY", flush=True)
signal.pause()
