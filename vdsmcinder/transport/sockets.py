# SPDX-License-Identifier: GPL-2.0-or-later
"""The sockets that the daemon listens on: those of systemd's, or opened with errors that help."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from vdsmcinder.config import ConfigError, Listen

BACKLOG = 1024
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def inherited(fds: Iterable[int]) -> list[socket.socket]:
    """The listening sockets that systemd opened for us and keeps open
    (system/socket_activation.py)."""
    found = []
    for fd in fds:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        found.append(sock)
    return found


def opened(listen: Listen) -> list[socket.socket]:
    """The sockets of the configuration, the TCP one first. Raises ConfigError."""
    tcp = open_tcp(listen.address, listen.port)
    try:
        return [tcp, open_unix(listen.unix_socket)]
    except ConfigError:
        tcp.close()
        raise


def open_tcp(address: str, port: int) -> socket.socket:
    """A listening TCP socket; '::' takes IPv4 too, and is 0.0.0.0 on a machine without IPv6.

    Raises ConfigError when the address cannot be had.
    """
    try:
        return _bind(address, port)
    except OSError as e:
        if address == "::" and e.errno in _NO_IPV6:
            return open_tcp("0.0.0.0", port)
        raise _cannot_listen(address, port, e) from e


def _bind(address: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, kind, protocol, _, name = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: a peer whose host died is found out without heart-beats.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        sock.bind(name)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(address: str, port: int, error: OSError) -> ConfigError:
    remedy = "set listen.address to an address of this host"
    if error.errno == errno.EADDRINUSE:
        remedy = "stop the program that uses it, or set listen.port to a free one"
    elif error.errno == errno.EACCES:
        remedy = "start the daemon as root, or set listen.port to 1024 or above"
    return ConfigError(
        f"listen.address {address}, listen.port {port} cannot be listened on: "
        f"{(error.strerror or str(error)).lower()}; {remedy}"
    )


def open_unix(path: str) -> socket.socket:
    """A listening unix socket that only its owner can connect to; its directory is made if missing.

    A socket that a dead daemon left is replaced. Raises ConfigError when another one listens there,
    when something else is there, or when it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path)
        # Linux makes the file with the mode of the descriptor: no moment in which others may
        # connect, and no process-wide umask to change.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as e:
        sock.close()
        raise ConfigError(
            f"listen.unix_socket: {path} cannot be made: {e.strerror or e}; set it to a path in a "
            "directory that the daemon can write to, of at most 107 bytes"
        ) from e
    except ConfigError:
        sock.close()
        raise
    return sock


def _clear(path: str) -> None:
    """Remove the socket of a daemon that is dead."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"listen.unix_socket: {path} exists and is not a socket; remove it, or set "
            "listen.unix_socket to another path"
        )
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full, so it lives
    raise ConfigError(
        f"listen.unix_socket: a daemon listens on {path} already; stop it, or set "
        "listen.unix_socket to another path"
    )
