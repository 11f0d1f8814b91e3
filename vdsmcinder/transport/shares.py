# SPDX-License-Identifier: GPL-2.0-or-later
"""What connections take of the daemon, all together and by client: how many stand, what they hold.

A client is a certificate, a local user, or, without TLS, a host. One may have half of each limit;
where all together have too much, the one with the most has to give way.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from vdsmcinder.config import Listen
from vdsmcinder.rpc.dispatch import Caller

# Connections are looked at so often, in seconds. One that has something to read at two looks, and
# has read nothing in between, is dropped.
LOOK_S = 30.0


class Connection(Protocol):
    """What is asked of a client's connection.

    caller: who it is. written_bytes: what was sent on it, so far.
    """

    caller: Caller
    written_bytes: int

    def unread_bytes(self) -> int:
        """How much of that it has not read yet."""

    def held_bytes(self) -> int:
        """That, and what it has sent and was not answered yet."""

    def refuse(self, reason: str) -> None:
        """Have it end with a word that says why."""

    def drop(self, why: str) -> None:
        """End it at once: it does not read. why: follows "it left ... bytes unread, "."""


class _Standing:
    """One connection. held: in bytes, when it was last measured.

    read: how much it had read at the last look, in bytes; None if there was nothing more to read.
    """

    __slots__ = ("held", "read")

    def __init__(self) -> None:
        self.held = 0
        self.read: int | None = None


class _Client:
    """The connections of one client, in the order in which they came."""

    def __init__(self) -> None:
        self.connections: dict[Connection, _Standing] = {}
        self.held = 0


class Shares:
    """All connections that stand, of all protocols. held: what they hold, in bytes."""

    def __init__(self, listen: Listen) -> None:
        self.held = 0
        self._most_connections = listen.max_connections
        self._most_held = listen.max_held_bytes
        self._clients: dict[str, _Client] = {}
        self._count = 0
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look after those that do not read."""
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(LOOK_S, self._look_again)

    def close(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()

    def enter(self, connection: Connection) -> None:
        """A connection stands; it, or another one, is ended if they are too many."""
        client = self._clients.setdefault(connection.caller.client, _Client())
        client.connections[connection] = _Standing()
        self._count += 1
        if len(client.connections) > self._most_connections // 2:
            connection.refuse(
                f"this client has {self._most_connections // 2} connections, half of what option "
                f"listen.max_connections ({self._most_connections}) allows; close some"
            )
        elif self._count > self._most_connections:
            crowd = max(self._clients.values(), key=lambda one: len(one.connections))
            next(reversed(crowd.connections)).refuse(
                f"more connections than option listen.max_connections ({self._most_connections}) "
                "allows stand, and this client has most of them; close some"
            )

    def leave(self, connection: Connection) -> None:
        """A connection is gone; one that was not there is none."""
        name = connection.caller.client
        client = self._clients.get(name)
        if client is None or connection not in client.connections:
            return
        self._measured(client, connection, 0)
        del client.connections[connection]
        self._count -= 1
        if not client.connections:
            del self._clients[name]

    def note(self, connection: Connection) -> None:
        """What a connection holds may have become more or less."""
        client = self._clients.get(connection.caller.client)
        if client is None or connection not in client.connections:
            return
        self._measured(client, connection, connection.held_bytes())
        if self._excess(client):
            self._shed(client)

    def look(self) -> None:
        """Drop the connections that have read nothing since the last look, and had something to."""
        for client in tuple(self._clients.values()):
            for connection, standing in tuple(client.connections.items()):
                unread, before = connection.unread_bytes(), standing.read
                read = connection.written_bytes - unread
                standing.read = read if unread else None
                if unread and before is not None and read <= before:
                    self.leave(connection)
                    connection.drop(f"and read none of them for {LOOK_S:.0f} s")

    def _look_again(self) -> None:
        self.start()
        self.look()

    def _measured(self, client: _Client, connection: Connection, held: int) -> None:
        standing = client.connections[connection]
        change = held - standing.held
        standing.held = held
        client.held += change
        self.held += change

    def _excess(self, client: _Client) -> bool:
        return self.held > self._most_held or client.held > self._most_held // 2

    def _shed(self, client: _Client) -> None:
        """Drop those that hold most until a client, and all, hold no more than they may."""
        # What was read meanwhile nobody has told of.
        for one in self._clients.values():
            for connection in one.connections:
                self._measured(one, connection, connection.held_bytes())
        while self._excess(client):
            most = client
            if client.held <= self._most_held // 2:
                most = max(self._clients.values(), key=lambda one: one.held)
            worst = max(most.connections, key=lambda c: most.connections[c].held)
            self.leave(worst)
            worst.drop(
                f"and all clients hold more than option listen.max_held_bytes ({self._most_held}) "
                "allows, or this one more than half of it"
            )
