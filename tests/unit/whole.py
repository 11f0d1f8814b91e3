# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole daemon, on libvirt's test driver and a free port, for tests of how its parts fit.

Its clients have real certificates; it is asked over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from lab.pki import Pki
from tests.unit.certificates import copied_pki
from tests.unit.transport.serving import client_tls, until
from vdsmcinder import config
from vdsmcinder.daemon import Daemon
from vdsmcinder.stomp.client import StompSession, connect


@dataclass
class Whole:
    """A daemon that runs, its configuration file and its certificates."""

    daemon: Daemon
    file: Path
    options: dict[str, dict[str, Any]]
    pki: Pki
    socket: Path
    port: int

    def configure(self, **sections: Mapping[str, Any]) -> None:
        """Write the configuration file anew; the daemon reads it on reload()."""
        changed = {k: {**self.options.get(k, {}), **v} for k, v in sections.items()}
        self.file.write_text(json.dumps({**self.options, **changed}))

    async def client(self, name: str = "engine") -> StompSession:
        """A STOMP session of the client with that certificate."""
        return await connect("127.0.0.1", self.port, self.tls(name))

    def tls(self, name: str = "engine") -> ssl.SSLContext:
        """The context of the client with that certificate."""
        return client_tls(self.pki, self.pki.identity(name))

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page, over the unix socket."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        return await get(reader, writer, path)

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Status and content of GET /health."""
        status, body = await self.get("/health")
        return status, json.loads(body)

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """All metrics: names without our prefix, and values of their labels, by label."""
        status, body = await self.get("/metrics")
        assert status == 200
        return samples(body)


async def get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
) -> tuple[int, bytes]:
    """Status and body of a page, over a connection that is spent with it."""
    writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """The samples of a page: names without our prefix, and values of their labels, by label."""
    return {
        (s.name.replace("vdsm_cinder_", "", 1), *(s.labels[k] for k in sorted(s.labels))): s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }


@contextlib.asynccontextmanager
async def running(directory: Path, **sections: Mapping[str, Any]) -> AsyncIterator[Whole]:
    """A daemon that knows its VMs, if libvirt can be reached, with these sections configured.

    Its certificates are those in the directory's pki, which is a copy unless it is there.
    """
    made = Pki(directory / "pki")
    pki = made if made.ca.exists() else copied_pki(made.directory)
    identity, socket, file = pki.identity("host"), directory / "socket", directory / "config"
    options: dict[str, dict[str, Any]] = {
        "listen": {
            "address": "127.0.0.1",
            "port": 0,
            "certificate": str(identity.cert),
            "key": str(identity.key),
            "ca": str(pki.ca),
            "unix_socket": str(socket),
        },
        "libvirt": {"uri": "test:///default", "threads": 2},
        "vms": {"sample_interval_s": 0.2},
    }
    for section, changes in sections.items():
        options.setdefault(section, {}).update(changes)
    file.write_text(json.dumps(options))
    daemon = Daemon(config.load(file), lambda: config.load(file))
    await daemon.start()
    try:
        whole = Whole(daemon, file, options, pki, socket, daemon.port)
        await until(lambda: _knows_its_vms(daemon), "libvirt's VMs are not known")
        yield whole
    finally:
        await daemon.close()


def _knows_its_vms(daemon: Daemon) -> bool:
    trouble = daemon._connection.trouble
    return daemon._watch.recovered or (bool(trouble) and "is being made" not in trouble)
