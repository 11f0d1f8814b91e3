# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon on host2 for tests that reconfigure it, clients of any certificate, and its metrics.

It has a copy of the lab's certificates, so that they can be renewed, broken and added to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from lab.base import wait_until
from lab.engine import client_context
from lab.host.daemon import HostDaemon
from lab.pki import Pki
from lab.running import Lab
from vdsmcinder.stomp import client as stomp

HEARTBEAT_MS = 120_000


@contextmanager
def second_daemon(lab: Lab, name: str, changes: dict[str, Any]) -> Iterator[HostDaemon]:
    """A daemon on host2 with certificates of its own, in a directory that goes with it."""
    directory = lab.directory / name
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(lab.pki.directory, directory / "pki")
    with HostDaemon(lab.hosts["host2"], Pki(directory / "pki"), changes, name) as daemon:
        yield daemon


async def client(daemon: HostDaemon, name: str) -> stomp.StompSession:
    """A session of the client with that certificate, subscribed to events."""
    context = client_context(daemon.pki, daemon.pki.identity(name))
    session = await stomp.connect(daemon.host.address, daemon.port, context, HEARTBEAT_MS)
    await session.subscribe_events()
    return session


def metrics(daemon: HostDaemon) -> dict[tuple[str, ...], float]:
    """The metrics by name, without our prefix, and values of their labels by label."""
    families = text_string_to_metric_families(daemon.page("/metrics").decode())
    return {
        (s.name.replace("vdsm_cinder_", "", 1), *(s.labels[k] for k in sorted(s.labels))): s.value
        for family in families
        for s in family.samples
    }


def wait_logged(daemon: HostDaemon, words: str, times: int = 1) -> None:
    """Wait until the daemon has logged these words so many times."""
    log = Path(daemon.log)
    wait_until(lambda: log.read_text().count(words) >= times, f"{words!r} in {log}", 20)
