# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's side of a join over HTTPS: its authorities, its tokens, its two paths."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from pathlib import Path
from typing import Any

from cinderengine.authorities.certificates import Unit
from cinderengine.authorities.keeper import Authorities, Layout, Validity, web_context
from cinderengine.errors import EngineError
from cinderengine.hosts import joining
from cinderengine.hosts.joining import Request, Token, Trust
from cinderengine.model.hosts import Host
from cinderengine.model.ids import now_ms

ENGINE = "CN=engine,OU=engine,O=vdsm-cinder"


class JoiningEngine:
    """Serves at `address`; as a context manager. hosts: those that it knows. asked: the paths."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        Authorities.make(directory, [address])
        self.address = address
        self.authorities = Authorities(Layout(directory), Validity())
        self.hosts: dict[str, Host] = {}
        self.asked: list[str] = []
        self._server = http.server.ThreadingHTTPServer((address, 0), _handler(self))
        context = web_context(self.authorities.layout.web)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def __enter__(self) -> JoiningEngine:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self._server.server_port}"

    def to_hosts(self) -> ssl.SSLContext:
        return self.authorities.to_hosts()

    def token_for(self, host: Host) -> str:
        """Add a host, or give one that there is another token; the token's text."""
        token = Token.made(self.authorities.fingerprint, now_ms())
        self.hosts[host.id] = token.given_to(host)
        return token.text.reveal()

    def join(self, raw: Any) -> dict[str, Any]:
        """What POST answers."""
        trust = Trust(ENGINE, self.authorities.clients_pem, self.authorities.hosts_pem)
        answer = joining.join(
            Request.read(raw), list(self.hosts.values()), trust, self._sign, now_ms=now_ms()
        )
        self.hosts[answer.host.id] = answer.host
        return answer.as_sent()

    def _sign(self, names: Any, requests: Any) -> dict[str, str]:
        units = {Unit(unit): pem for unit, pem in requests.items()}
        signed = self.authorities.sign_host(names, units)
        return {str(unit): one.certificate_pem for unit, one in signed.items()}


def _handler(engine: JoiningEngine) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            engine.asked.append(self.path)
            if self.path == joining.CA_PATH:
                self._answer(200, engine.authorities.clients_pem.encode())
            else:
                self._answer(404, b"")

        def do_POST(self) -> None:
            engine.asked.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                self._answer(200, json.dumps(engine.join(json.loads(body))).encode())
            except EngineError as e:
                fault = {"reason": e.reason, "detail": e.detail}
                self._answer(e.status, json.dumps(fault).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler
