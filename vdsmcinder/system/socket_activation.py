# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd hands to the daemon when it starts it: listening sockets, and memory that it kept.

It is to be taken once, first of all: later, the number of a descriptor that was closed may be
somebody else's. sd_listen_fds(3), file-descriptor store in systemd.service(5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from systemd.daemon import is_socket, listen_fds


@dataclass(frozen=True)
class Handed:
    """File descriptors; whoever takes one closes it.

    sockets: in systemd's order. stored: what is no socket, by the name that it was stored under.
    """

    sockets: tuple[int, ...] = ()
    stored: Mapping[str, int] = field(default_factory=dict)


def receive() -> Handed:
    """What there is; nothing where no systemd started the process. Our children do not inherit it.

    To be called once.
    """
    # systemd-python tells the names from version 235 on only, and EL9 has an older one.
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    fds = list(listen_fds())
    named = zip([*names, *[""] * len(fds)], fds)
    return Handed(
        sockets=tuple(fd for fd in fds if is_socket(fd)),
        stored={name: fd for name, fd in named if not is_socket(fd)},
    )
