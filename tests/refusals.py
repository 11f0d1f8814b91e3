# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of libvirt's for tests to raise."""

from __future__ import annotations

import libvirt


def libvirt_error(message: str, code: int | None = None) -> libvirt.libvirtError:
    """A libvirtError with that message, and with that code if it is to have one.

    libvirt's own constructor prefers what the thread was last told, by whichever test ran before.
    """
    libvirt.virResetLastError()
    error = libvirt.libvirtError(message)
    if code is not None:
        error.err = (code, 0, message, 0, "", None, None, -1, -1)
    return error
