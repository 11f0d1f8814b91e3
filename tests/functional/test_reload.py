# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates, roles and log level that change while the daemon runs, with a real SIGHUP.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_reload.py`.
"""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest

from lab.engine import client_context
from tests.functional.second import client, metrics, second_daemon, wait_logged
from vdsmcinder.client.session import over_unix
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

APPLIED = "the roles and the log level were read again"
RENEWED = "the certificates were read again"
EXPIRES = "|host|certificate_expires|host"


@pytest.fixture
def daemon(lab):
    with second_daemon(lab, "reloaded", {}) as daemon:
        yield daemon


async def logged(daemon, words, times=1):
    await asyncio.to_thread(wait_logged, daemon, words, times)


async def shown_serial(daemon) -> str:
    """The serial number of the certificate that a new client is shown."""
    context = client_context(daemon.pki, daemon.pki.engine)
    _, writer = await asyncio.open_connection(daemon.host.address, daemon.port, ssl=context)
    serial: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return serial


async def test_a_renewed_certificate_is_noticed_and_nobody_is_dropped(daemon):
    engine, old = await client(daemon, "engine"), await shown_serial(daemon)
    daemon.pki.renew_host("host2", daemon.host.address, days=60)
    await logged(daemon, RENEWED)
    assert await shown_serial(daemon) != old
    assert await engine.call("Host.ping2") is True
    await engine.close()


async def test_a_certificate_that_ends_soon_is_told_of_everywhere(daemon):
    engine = await client(daemon, "engine")
    assert daemon.health()["warnings"] == []
    daemon.pki.renew_host("host2", daemon.host.address, days=20)
    event = await engine.wait_for_event(lambda e: e["method"] == EXPIRES, 30)
    told = event["params"]["host"]
    assert (told["file"], told["daysLeft"]) == (str(daemon.pki.identity("host2").cert), 19)
    assert "expires in 20.0 days; renew it with vdsm-cinder pki renew" in told["message"]
    assert (
        f"WARNING vdsmcinder.monitoring.certificate_expiry: {told['message']}"
        in daemon.log.read_text()
    )
    health = daemon.health()
    assert (health["status"], health["warnings"]) == ("ready", [told["message"]])
    expiry = metrics(daemon)["certificate_expiry_timestamp_seconds", "host"]
    assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expiry)) == told["expires"]
    # Who comes later is told too, at once; the others are told again tomorrow.
    late = await client(daemon, "engine")
    assert (await late.wait_for_event(lambda e: e["method"] == EXPIRES, 30))["params"]["host"]
    operator = over_unix(str(daemon.unix_socket), 30)
    heard = await asyncio.to_thread(lambda: next(iter(operator.events())))
    assert heard["method"] == EXPIRES
    assert daemon.log.read_text().count("WARNING vdsmcinder.monitoring.certificate_expiry") == 1
    daemon.pki.renew_host("host2", daemon.host.address, days=60)
    await logged(daemon, RENEWED, times=2)
    assert daemon.health()["warnings"] == []
    await engine.close()
    await late.close()


async def test_a_broken_certificate_is_told_of_and_stays_out_of_force(daemon):
    old = await shown_serial(daemon)
    cert = daemon.pki.identity("host2").cert
    kept = cert.read_bytes()
    cert.write_bytes(kept[: len(kept) // 2])
    daemon.reload()
    await logged(daemon, "ERROR")
    assert await shown_serial(daemon) == old
    health = daemon.health()
    assert (health["status"], health["ready"]) == ("degraded", True)
    assert "listen.certificate" in health["reasons"][0]
    assert daemon.log.read_text().count("ERROR") == 1
    cert.write_bytes(kept)
    daemon.reload()
    await logged(daemon, RENEWED)
    assert daemon.health()["status"] == "ready"


async def test_another_ca_shuts_out_new_clients_alone(daemon):
    engine = await client(daemon, "engine")
    daemon.pki.ca.write_bytes((daemon.pki.directory / "foreign-ca.pem").read_bytes())
    daemon.reload()
    await logged(daemon, RENEWED)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await client(daemon, "engine")
    assert await engine.call("Host.ping2") is True
    await engine.close()


async def test_roles_and_log_level_change_for_clients_that_are_connected(daemon):
    engine = await client(daemon, "engine")
    assert await engine.call("Host.setLogLevel", {"level": "DEBUG"}) is True
    daemon.configure({"access": {"roles": {"engine": "monitor"}}, "log": {"level": "INFO"}})
    daemon.reload()
    await logged(daemon, APPLIED)
    with pytest.raises(RemoteError) as denied:
        await engine.call("Host.setLogLevel", {"level": "DEBUG"})
    assert denied.value.code == 75
    before = daemon.log.read_text().count("DEBUG")
    assert await engine.call("Host.getVMList") == []
    assert daemon.log.read_text().count("DEBUG") == before
    daemon.configure({"access": {"roles": {"engine": "operator"}}})
    daemon.reload()
    await logged(daemon, "engine is 'operator'; expected one of admin, viewer, monitor, none")
    daemon.configure({})
    daemon.reload()
    await logged(daemon, APPLIED, times=2)
    assert await engine.call("Host.setLogLevel", {"level": "DEBUG"}) is True
    await engine.close()
