# SPDX-License-Identifier: GPL-2.0-or-later
"""Where clients come in: one TCP port for STOMP and HTTP, and a unix socket for HTTP.

On the TCP port the first bytes tell which protocol a client speaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from asyncio import sslproto
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vdsmcinder import tls_errors
from vdsmcinder.config import Listen, Rpc
from vdsmcinder.rpc.access import Role
from vdsmcinder.system.counters import Deliveries
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.transport import identity, peer, sockets, tls
from vdsmcinder.transport.certificates import Certificates
from vdsmcinder.transport.http import HttpServer
from vdsmcinder.transport.http_connection import HttpConnection
from vdsmcinder.transport.newcomers import Newcomers
from vdsmcinder.transport.protocol_detect import Greeter, Spoken
from vdsmcinder.transport.shares import Shares
from vdsmcinder.transport.status_pages import Pages
from vdsmcinder.transport.stomp_server import StompConnection, StompServer

if TYPE_CHECKING:
    from vdsmcinder.rpc.dispatch import Caller, Dispatcher
    from vdsmcinder.rpc.events import Events

log = logging.getLogger(__name__)

# A client has this long, in seconds, for its TLS handshake, and as long for its first bytes.
GREETING_TIMEOUT_S = 10.0
# Verbs under way at shutdown have this long.
SHUTDOWN_TIMEOUT_S = 3.0
# How often it is looked at whose certificate has ended or was revoked, in seconds.
LOOK_S = 1.0
# While the process is out of file descriptors, new clients wait in the kernel this long.
ACCEPT_RETRY_S = 1.0
# For what is read of one connection before it is handled, in bytes.
READ_BUFFER_BYTES = 64 * 1024
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def limit_read_buffers() -> None:
    """Have asyncio's TLS connections, from now on, take less memory than it gives them.

    It sets aside 256 KiB for each at its first byte, before anyone has shown a certificate.
    """
    sslproto.SSLProtocol.max_size = READ_BUFFER_BYTES


class Listener:
    """Accepts clients and gives each the protocol that it speaks.

    handed: file descriptors of systemd's listening sockets; none without socket activation.
    pages: what GET /health and GET /metrics answer.
    certificates: those in force; None before start(), and without TLS.
    accepted: clients that got as far as their protocol.
    """

    def __init__(  # noqa: PLR0917 - all that clients can ask for, and where they come in
        self,
        listen: Listen,
        rpc: Rpc,
        dispatcher: Dispatcher,
        events: Events,
        pages: Pages,
        tasks: Tasks,
        handed: Sequence[int] = (),
    ) -> None:
        self._listen = listen
        self._handed = handed
        self.certificates: Certificates | None = None
        self.accepted: Counter[Spoken] = Counter()
        self._role = dispatcher.role
        self._requests = tasks.group("requests")
        self._greetings = tasks.group("clients that come")
        self._newcomers = Newcomers()
        self._shares = Shares(listen)
        self._stomp = StompServer(
            listen, rpc, dispatcher, events, self._requests, shares=self._shares
        )
        self._http = HttpServer(
            listen,
            dispatcher,
            events,
            self._requests,
            pages,
            shares=self._shares,
            tasks=tasks.group("HTTP"),
        )
        self._sockets: list[socket.socket] = []
        self._activated = False

    @property
    def port(self) -> int:
        """The TCP port; the one that was found free where the configuration says 0."""
        tcp = next(sock for sock in self._sockets if sock.family != socket.AF_UNIX)
        return int(tcp.getsockname()[1])

    @property
    def turned_away(self) -> int:
        """How many clients did not get as far as their protocol."""
        return self._newcomers.turned_away

    @property
    def held_bytes(self) -> int:
        """What clients have not read, or sent and not been answered, as far as is known."""
        return self._shares.held

    @property
    def connections(self) -> Mapping[Spoken, int]:
        """How many connections stand, by protocol."""
        stomp, http = self._stomp.connections, self._http.connections
        return {Spoken.STOMP: len(stomp), Spoken.HTTP: len(http)}

    @property
    def deliveries(self) -> Mapping[Spoken, Deliveries]:
        """What clients were sent, by protocol."""
        return {Spoken.STOMP: self._stomp.deliveries, Spoken.HTTP: self._http.deliveries}

    @property
    def requests_under_way(self) -> int:
        """How many requests wait for verbs that take their time."""
        return self._requests.count

    @property
    def requests_refused(self) -> int:
        """Requests that were refused because too many of their connection were under way."""
        return self._stomp.refused

    async def start(self) -> None:
        """Begin to accept on systemd's sockets, or else on our own. Raises ConfigError."""
        listen = self._listen
        if listen.tls:
            self.certificates = Certificates(listen)
        self._sockets = sockets.inherited(self._handed)
        self._activated = bool(self._sockets)
        if not self._activated:
            self._sockets = sockets.opened(listen)
        self._shares.start()
        self._newcomers.start()
        self._stomp.start()
        self._http.start()
        if self.certificates is not None:
            self._greetings.spawn(self.certificates.watch(), "certificates")
        self._greetings.spawn(self._watch_clients(), "clients")
        for sock in self._sockets:
            self._accept_on(sock)
        names = [peer.address(sock.getsockname()) for sock in self._sockets]
        log.info("listening on %s", " and ".join(names))
        if not listen.tls:
            log.warning("listen.tls is false: whoever reaches the TCP port controls all VMs")

    async def close(self) -> None:
        """Stop accepting, end every connection, and leave no task behind."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
        await self._greetings.close()
        self._newcomers.close()
        self._shares.close()
        self._close_sockets()
        await self._stomp.close()
        await self._http.close()
        await self._requests.finish(SHUTDOWN_TIMEOUT_S)

    def dismiss(self) -> None:
        """End the connections of clients that may not be here any more."""
        connections: list[StompConnection | HttpConnection] = [
            *self._stomp.connections,
            *self._http.connections,
        ]
        for connection in connections:
            why = self._refusal(connection.caller)
            if why:
                log.warning("client %s is dismissed: %s", connection.caller, why)
                connection.dismiss(why)

    async def _watch_clients(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.dismiss()

    def _known(self, transport: asyncio.BaseTransport, protocol: str) -> Caller:
        """Who is at the other end."""
        authorities = None if self.certificates is None else self.certificates.authorities
        return peer.caller(transport, protocol, authorities)

    def _refusal(self, caller: Caller) -> str:
        """Why a client may not be here, with what to do; empty if it may."""
        if caller.trouble:
            return caller.trouble
        if caller.is_host:
            if caller.transport == Spoken.HTTP.value:
                return "hosts call one another over STOMP alone"
        elif self._role(caller.names) is Role.NONE:
            return "its role is none; give it another one in option access.roles"
        if caller.expires_at <= time.time():
            return "its certificate has expired; renew it"
        if self.certificates is not None and caller.certificate in self.certificates.revoked:
            return "its certificate was revoked (option listen.crl); have it given another one"
        return ""

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            if sock.family == socket.AF_UNIX and not self._activated:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._listen.unix_socket)
            sock.close()
        self._sockets.clear()

    def _accept_on(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Welcome whoever waits on a socket.

        loop.sock_accept would lose who comes in the moment in which it is cancelled: here they wait
        for the daemon that follows this one.
        """
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as e:
            log.error("a client could not be accepted: %s", tls_errors.reason(e))
            if e.errno in _OUT_OF_RESOURCES:
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(ACCEPT_RETRY_S, self._accept_on, listening)
            return
        sock.setblocking(False)
        self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        """Greet a client, unless its address sends too many that fail."""
        name, host = "on the unix socket", None
        if sock.family != socket.AF_UNIX:
            try:
                peer_name = sock.getpeername()
            except OSError:
                # It has gone again.
                sock.close()
                return
            name, host = peer.address(peer_name), str(peer_name[0])
        if not self._newcomers.let_in(host):
            sock.close()
            return
        task = self._greetings.spawn(self._greet(sock, name, host), "greet")
        self._newcomers.greets(task, host)

    async def _greet(self, sock: socket.socket, name: str, host: str | None) -> None:
        """Bring a new client as far as its own protocol; the log may have a line if that fails."""
        task, newcomers = asyncio.current_task(), self._newcomers
        assert task is not None
        try:
            await self._introduce(sock)
        except ConnectionResetError:
            newcomers.failed(host, name, "it hung up before it said anything", level=logging.INFO)
        except asyncio.TimeoutError:
            # An address that is far away, or a host that is busy, is no attack.
            newcomers.failed(host, name, f"silent for {GREETING_TIMEOUT_S:.0f} s", counts=False)
        except identity.Unreadable as e:
            newcomers.failed(host, name, f"{e}; give it another one")
        except OSError as e:
            newcomers.failed(host, name, tls.refusal(e))
        finally:
            newcomers.greeted(task, host)

    async def _introduce(self, sock: socket.socket) -> None:
        """Shake hands, listen to the first bytes, and hand over to the protocol that they are of.

        Raises OSError (ssl.SSLError is one) or asyncio.TimeoutError when the client does not do
        its part.
        """
        greeter = Greeter()
        transport = await self._connect(sock, greeter)
        try:
            spoken = await within(greeter.spoken, GREETING_TIMEOUT_S)
            local = sock.family == socket.AF_UNIX
            why = self._refusal(self._known(transport, spoken.value))
            if why:
                raise PermissionError(errno.EACCES, why)
            protocol = self._protocol(Spoken.HTTP if local else spoken)
        except BaseException:
            transport.abort()
            raise
        self.accepted[Spoken.HTTP if local else spoken] += 1
        if transport.is_closing():
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        protocol.data_received(greeter.taken())

    async def _connect(self, sock: socket.socket, greeter: Greeter) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        if self.certificates is None or sock.family == socket.AF_UNIX:
            transport, _ = await loop.connect_accepted_socket(lambda: greeter, sock)
        else:
            transport, _ = await loop.connect_accepted_socket(
                lambda: greeter,
                sock,
                ssl=self.certificates.context,
                ssl_handshake_timeout=GREETING_TIMEOUT_S,
            )
        assert isinstance(transport, asyncio.Transport)
        return transport

    def _protocol(self, spoken: Spoken) -> asyncio.Protocol:
        if spoken is Spoken.STOMP:
            return StompConnection(self._stomp, self._known)
        return HttpConnection(self._http, self._known)
