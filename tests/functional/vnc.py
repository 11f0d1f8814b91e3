# SPDX-License-Identifier: GPL-2.0-or-later
"""A VNC client that comes as far as the door: whether a password opens a display.

Follows RFC 6143, 7.1 and 7.2.2; the password is a DES key, each byte of it with its bits reversed.
"""

from __future__ import annotations

import socket
import subprocess

VNC_AUTHENTICATION = 2


def opens(address: str, port: int, password: str) -> bool:
    """Whether the display lets somebody in who knows this password."""
    with socket.create_connection((address, port), 10) as connection:
        stream = connection.makefile("rb")
        connection.sendall(stream.read(12))
        (kinds,) = stream.read(1)
        assert VNC_AUTHENTICATION in stream.read(kinds)
        connection.sendall(bytes([VNC_AUTHENTICATION]))
        connection.sendall(_encrypted(stream.read(16), password))
        return stream.read(4) == bytes(4)


def _encrypted(challenge: bytes, password: str) -> bytes:
    key = bytes(int(f"{b:08b}"[::-1], 2) for b in password.encode().ljust(8, b"\0")[:8])
    des = ["enc", "-des-ecb", "-provider", "legacy", "-provider", "default", "-nopad"]
    command = ["openssl", *des, "-K", key.hex()]
    return subprocess.run(command, input=challenge, capture_output=True, check=True).stdout
