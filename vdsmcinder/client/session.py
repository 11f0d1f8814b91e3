# SPDX-License-Identifier: GPL-2.0-or-later
"""A session with a daemon over HTTP: over its unix socket on this host, over TLS elsewhere.

For calls and for events. Nothing but the standard library is imported, because an operator waits
for that. Timeouts are in seconds; Unreachable says why there is no session.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import socket
import ssl
import time
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

from vdsmcinder.client.exit_codes import UNREACHABLE, CommandFailed, UsageError
from vdsmcinder.config import Listen
from vdsmcinder.errors import Recovering, RemoteError
from vdsmcinder.tls_errors import reason

FLOW_ID = "ovirtCorrelationId"
# The daemon says something on a stream of events every 15 s.
EVENTS_TIMEOUT_S = 45.0
CONNECT_TIMEOUT_S = 10.0
# An operator's next command after a restart finds a daemon that still reads its VMs: it waits for
# so long, in seconds, and asks again after each pause.
RECOVERY_TIMEOUT_S = 5.0
RECOVERY_PAUSE_S = 0.1
_DONE = (http.HTTPStatus.OK, http.HTTPStatus.NO_CONTENT)
_HEALTH = (http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE)


class Unreachable(CommandFailed):
    """The daemon cannot be reached, or does not answer; the message says why and what to do."""

    exit_code = UNREACHABLE


class Session:
    """Calls verbs of one daemon.

    dial: makes a connection, which need not be open yet. name: the daemon, in messages. explain:
    turns what went wrong with a connection into a sentence.
    """

    def __init__(
        self,
        dial: Callable[[float], http.client.HTTPConnection],
        name: str,
        explain: Callable[[OSError], str],
        timeout_s: float,
    ) -> None:
        self._dial = dial
        self._name = name
        self._explain = explain
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Nothing is kept open between calls."""

    def call(
        self, verb: str, params: Mapping[str, Any] | None = None, flow_id: str | None = None
    ) -> Any:
        """The result of a verb. Raises RemoteError, Unreachable.

        A daemon that has just started is given a moment to learn of its VMs.
        """
        deadline = time.monotonic() + min(RECOVERY_TIMEOUT_S, self._timeout_s)
        while True:
            try:
                return self._call_once(verb, params, flow_id)
            except RemoteError as e:
                if e.code != Recovering.code or time.monotonic() > deadline:
                    raise
            time.sleep(RECOVERY_PAUSE_S)

    def _call_once(self, verb: str, params: Mapping[str, Any] | None, flow_id: str | None) -> Any:
        request = {"jsonrpc": "2.0", "method": verb, "params": params or {}, "id": next(self._ids)}
        headers = {"Content-Type": "application/json"}
        if flow_id is not None:
            headers[FLOW_ID] = flow_id
        with self._request("POST", "/", self._timeout_s, json.dumps(request), headers) as response:
            reply = self._parse(response.read())
        if "error" in reply:
            error = reply["error"]
            raise RemoteError(error["code"], error["message"], error.get("data") or {})
        return reply.get("result")

    def health(self) -> Any:
        """What GET /health answers, also of a daemon that is not ready. Raises Unreachable."""
        asked = self._request("GET", "/health", self._timeout_s, None, {}, _HEALTH)
        with asked as response:
            return self._parse(response.read())

    def events(self) -> Iterator[Mapping[str, Any]]:
        """Events from now on, as JSON-RPC notifications, until the daemon ends.

        Raises Unreachable, also when the daemon ends.
        """
        accept = {"Accept": "text/event-stream"}
        with self._request("GET", "/events", EVENTS_TIMEOUT_S, None, accept) as response:
            for line in response:
                if line.startswith(b"data:"):
                    yield self._parse(line[5:])
        raise Unreachable(f"{self._name} ended the stream of events; it was stopped or restarted")

    def _parse(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            raise Unreachable(
                f"{self._name} does not answer in JSON; is it vdsm-cinderd?"
            ) from None

    @contextlib.contextmanager
    def _request(  # noqa: PLR0917 - what makes up a request, and what may come back
        self,
        method: str,
        path: str,
        timeout_s: float,
        body: str | None,
        headers: dict[str, str],
        expected: Container[int] = _DONE,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._dial(min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            self._open(connection)
            connection.sock.settimeout(timeout_s)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            self._check(response, expected)
            yield response
        except socket.timeout:
            raise Unreachable(
                f"{self._name} did not answer in time; see its log, or wait longer with --timeout"
            ) from None
        except OSError as e:
            raise Unreachable(self._explain(e)) from e
        except http.client.IncompleteRead as e:
            raise Unreachable(f"{self._name} ended in the middle of an answer; see its log") from e
        except http.client.HTTPException as e:
            raise Unreachable(
                f"{self._name} does not answer in HTTP ({type(e).__name__}); is it vdsm-cinderd?"
            ) from e
        finally:
            connection.close()

    def _open(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.connect()
        except OSError as e:
            raise Unreachable(self._explain(e)) from e

    def _check(self, response: http.client.HTTPResponse, expected: Container[int]) -> None:
        if response.status in expected:
            return
        content = self._parse(response.read())
        raise CommandFailed(f"{self._name} refused: {content.get('error', response.reason)}")


def connect(options: argparse.Namespace) -> Session:
    """The session that the command's words ask for.

    options: socket, host ('HOST' or 'HOST:PORT', None for this host), cert, key, ca, timeout.
    Raises Unreachable when the certificates cannot be used, UsageError for a host with a port that
    is none; connections are made by the calls.
    """
    if options.host is None:
        return over_unix(options.socket, options.timeout)
    host, port = _host_and_port(options.host)
    context = client_context(options.cert, options.key, options.ca)
    return over_tls(host, port, context, options.timeout)


def over_unix(path: str, timeout_s: float) -> Session:
    """A session with the daemon whose unix socket is at path."""
    name = f"the daemon at {path}"

    def explain(error: OSError) -> str:
        if isinstance(error, FileNotFoundError):
            return f"there is no socket {path}; start vdsm-cinderd, or name its socket by --socket"
        if isinstance(error, ConnectionRefusedError):
            return f"no daemon listens on {path} any more; start vdsm-cinderd"
        if isinstance(error, PermissionError):
            return f"{path} is for root alone; run this command as root"
        return f"{name} cannot be reached: {reason(error)}; see its log"

    return Session(lambda t: _UnixConnection(path, t), name, explain, timeout_s)


def over_tls(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> Session:
    """A session with the daemon of another host."""
    name = f"the daemon at {host}:{port}"

    def dial(connect_timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(host, port, timeout=connect_timeout_s, context=context)

    def explain(error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host}:{port} is not to be trusted: {error.verify_message}; "
                "give the CA that signed it by --ca, and the name that it is for by --host"
            )
        # asyncio's server hangs up on a certificate that it refuses without saying so.
        if isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
            return (
                f"{name} hung up, as it does with a certificate that its CA did not sign; give "
                "one that it did by --cert and --key, or see its log"
            )
        if isinstance(error, ssl.SSLError):
            return f"{host}:{port} does not speak TLS ({reason(error)}); check the port in --host"
        if isinstance(error, socket.gaierror):
            return f"host {host} is not known: {reason(error)}; check --host"
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens on {host}:{port}; start vdsm-cinderd there, or check --host"
        return f"{name} cannot be reached: {reason(error)}; check --host and the network"

    return Session(dial, name, explain, timeout_s)


def client_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """TLS with our certificate, trusting hosts that the CA signed; arguments are PEM files.

    Raises Unreachable when one of them cannot be used.
    """
    for option, path in (("--cert", cert), ("--key", key), ("--ca", ca)):
        if not os.access(path, os.R_OK):
            why = "cannot be read" if Path(path).exists() else "does not exist"
            raise Unreachable(f"{path} {why}; name the PEM file to use by {option}")
    try:
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as e:
        raise Unreachable(
            f"{cert}, {key} and {ca} are not a certificate, its unencrypted key and a CA "
            f"({reason(e)}); name PEM files by --cert, --key and --ca"
        ) from e
    return context


def _host_and_port(text: str) -> tuple[str, int]:
    """'node7', 'node7:54321', '2001:db8::7', '[2001:db8::7]:54321'."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return text.strip("[]"), Listen.port
    if not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text} names no port after its colon; write --host HOST:PORT")
    return host.strip("[]"), int(port)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
