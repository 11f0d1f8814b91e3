# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of what a VM shows on its display."""

from __future__ import annotations

import contextlib

import libvirt

from vdsmcinder.errors import Unexpected, UnsupportedOperation
from vdsmcinder.virt.live.picture import PNG_SIGNATURE, png
from vdsmcinder.virt.vm.vm import VM

_FIRST_SCREEN = 0
_CHUNK_BYTES = 256 * 1024


async def take(vm: VM) -> bytes:
    """The VM's first screen as PNG.

    Raises VMIsDown (6), UnsupportedOperation (75) for a VM without a display, Unexpected (16).
    """
    vm.require_running("pictured")
    if not vm.domain.graphics:
        raise UnsupportedOperation(
            f"VM {vm.id} has no display, so there is nothing to picture; create it with one"
        )
    return await vm.command(_picture, doing="pictured", failure=Unexpected)


def _picture(domain: libvirt.virDomain) -> bytes:
    """Runs in the connection's thread pool."""
    stream = domain.connect().newStream()
    try:
        domain.screenshot(stream, _FIRST_SCREEN)
        data = b"".join(iter(lambda: stream.recv(_CHUNK_BYTES), b""))
    except libvirt.libvirtError:
        with contextlib.suppress(libvirt.libvirtError):
            stream.abort()
        raise
    stream.finish()
    return data if data.startswith(PNG_SIGNATURE) else png(data)
