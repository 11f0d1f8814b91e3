# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's pages for operators, over its unix socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


def page(unix_socket: Path, path: str) -> bytes:
    """What the daemon answers to GET. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(unix_socket))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2]


def health(unix_socket: Path) -> dict[str, Any]:
    """What the daemon says of itself on GET /health. Raises OSError."""
    content: dict[str, Any] = json.loads(page(unix_socket, "/health"))
    return content
