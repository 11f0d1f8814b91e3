# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of libvirt's for tests to raise."""

from __future__ import annotations

import libvirt


def libvirt_error(message: str) -> libvirt.libvirtError:
    """A libvirtError with that message.

    libvirt's own constructor prefers what the thread was last told, by whichever test ran before.
    """
    libvirt.virResetLastError()
    return libvirt.libvirtError(message)
