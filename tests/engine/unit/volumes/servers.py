# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers that answer what no real Cinder or Keystone can be made to answer."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSIONS = {
    "versions": [
        {
            "id": "v3.0",
            "version": "3.70",
            "media-types": [{"type": "application/vnd.openstack.volume+json;version=3"}],
        }
    ]
}
TOKEN_PATH = "/identity/v3/auth/tokens"


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Answer:
    """body: an object is sent as JSON, a text as HTML."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[Request], Answer]


@dataclass
class Server:
    url: str
    asked: list[Request]

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.asked]


@contextlib.contextmanager
def serving(answering: Answering, certificate: Path | None = None) -> Iterator[Server]:
    """A server on a port of this machine. certificate: a file of it and its key, for TLS."""
    asked: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            request = Request(self.command, self.path, dict(self.headers), body)
            asked.append(request)
            answer = answering(request)
            is_text = isinstance(answer.body, str)
            data = answer.body.encode() if is_text else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            kind = "text/html; charset=utf-8" if is_text else "application/json"
            headers = {"Content-Type": kind, "Content-Length": str(len(data)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Server(f"{scheme}://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed(directory: Path) -> Path:
    """A certificate that nobody but itself has signed, and its key."""
    file = directory / "self-signed.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(file), "-out", str(directory / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (directory / "certificate.pem").read_text())
    return file


def token(name: str, url: str, region: str = "RegionOne", project_id: str = "0" * 32) -> Answer:
    """A Keystone's answer to who may come in."""
    endpoint = {"interface": "public", "region_id": region, "url": f"{url}/v3/{project_id}"}
    body = {
        "token": {
            "methods": ["password"],
            "expires_at": "2999-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {
                "id": project_id,
                "name": "p",
                "domain": {"id": "default", "name": "Default"},
            },
            "catalog": [{"type": "block-storage", "id": "b", "endpoints": [endpoint]}],
        }
    }
    return Answer(201, body, {"X-Subject-Token": name})
