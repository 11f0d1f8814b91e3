# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole daemon: what it tells of itself, who may do what, and what it reads again."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import os
import re
import signal
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.base import REPOSITORY
from lab.pki import Pki
from tests.unit.certificates import copied_pki
from tests.unit.transport.serving import until
from tests.unit.whole import Whole, get, running
from vdsmcinder import config, daemon, peer_client
from vdsmcinder.client import cli
from vdsmcinder.config import Migration
from vdsmcinder.daemon import CERTIFICATES_UNUSABLE, WRONG_CONFIGURATION, Daemon
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import SessionLost, connect
from vdsmcinder.system import names
from vdsmcinder.transport.certificates import Owner
from vdsmcinder.virt.vm.migration_request import Address

MONITOR = {"access": {"roles": {"grafana": "monitor"}}}


@pytest.fixture(autouse=True)
def log_level():
    """Daemons set the root logger's level; the other tests get theirs back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


# --- metrics -----------------------------------------------------------------------------------


async def test_requests_are_counted_by_verb_and_outcome(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        engine = await host.client()
        for _ in range(3):
            await engine.call("Host.ping2")
        for verb in ("VM.reset", "Host.nonsense"):
            with pytest.raises(RemoteError):
                await engine.call(verb, {"vmID": "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"})
        found = await host.metrics()
        assert found["requests_total", "ok", "Host.ping2"] == 3
        assert found["requests_total", "1", "VM.reset"] == 1
        assert found["requests_refused_total", "-32601"] == 1
        assert found["request_duration_seconds_count", "Host.ping2"] == 3
        assert found["request_duration_seconds_bucket", "+Inf", "Host.ping2"] == 3
        assert 0 < found["request_duration_seconds_sum", "Host.ping2"] < 3
        await engine.close()


async def test_connections_and_events_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        engine, deaf = await host.client(), await host.client()
        await engine.subscribe_events()
        with pytest.raises(OSError):
            await host.client("foreign")
        host.daemon._events.publish("|virt|VM_status|x", {"x": {"status": "Up"}})
        await engine.wait_for_event(lambda e: True)
        found = await host.metrics()
        assert found["connections", "stomp"] == 2
        assert found["connections_accepted_total", "stomp"] == 2
        assert found["connections", "http"] >= 1
        assert found["connections_refused_total",] == 1
        assert found["events_total",] == 1
        assert found["events_sent_total", "stomp"] == 1
        assert found["events_dropped_total", "stomp"] == 0
        await engine.close()
        await deaf.close()


async def test_libvirt_calls_and_threads_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        release = threading.Event()
        connection = host.daemon._connection
        with pytest.raises(Exception, match="did not come back"):
            await connection.call(release.wait, timeout_s=0.01)
        found = await host.metrics()
        assert found["libvirt_up",] == 1
        assert found["libvirt_calls_total", "list_domains", "ok"] == 1
        assert found["libvirt_calls_total", "wait", "overrun"] == 1
        assert found["libvirt_call_duration_seconds_count", "wait"] == 1
        assert found["libvirt_calls_stuck",] == found["libvirt_threads_busy",] == 1
        assert found["libvirt_threads",] == 2
        release.set()


async def test_what_prometheus_needs_beside(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        found = await host.metrics()
        assert found["ready",] == found["healthy",] == 1
        assert found["vms", "Up"] == 0
        assert found["process_resident_memory_bytes",] > 10e6
        sixty_days_on = time.time() + 60 * 86400
        for owner in ("host", "ca"):
            expiry = found["certificate_expiry_timestamp_seconds", owner]
            assert abs(expiry - sixty_days_on) < 3600


# --- health ------------------------------------------------------------------------------------


async def test_a_daemon_that_can_do_its_work_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        assert await host.health() == (
            200,
            {"status": "ready", "ready": True, "reasons": [], "warnings": []},
        )


async def test_without_libvirt_it_is_degraded_and_not_ready(tmp_path: Path) -> None:
    libvirt = {"uri": "test:///nowhere"}
    async with running(tmp_path, libvirt=libvirt, listen={"tls": False}) as host:
        status, health = await host.health()
        assert (status, health["status"], health["ready"]) == (503, "degraded", False)
        assert health["reasons"][0].startswith("libvirt at test:///nowhere cannot be reached")
        found = await host.metrics()
        assert found["libvirt_up",] == found["ready",] == found["healthy",] == 0
        assert ("secrets",) not in found


async def test_stuck_calls_degrade_it_until_all_threads_hang(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        release = threading.Event()
        for ready, stuck in ((True, 1), (False, 2)):
            with pytest.raises(Exception, match="did not come back"):
                await host.daemon._connection.call(release.wait, timeout_s=0.01)
            status, health = await host.health()
            assert (status == 200, health["status"], health["ready"]) == (ready, "degraded", ready)
            assert f"{stuck} of 2 threads" in health["reasons"][0]
        release.set()


async def test_a_certificate_that_ends_soon_is_told_of(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        host.pki.renew_host("host", "127.0.0.1", days=20)
        await host.daemon.read_again()
        status, health = await host.health()
        assert (status, health["status"], health["reasons"]) == (200, "ready", [])
        assert "expires in 20.0 days; renew it with vdsm-cinder pki renew" in health["warnings"][0]
        host.pki.renew_host("host", "127.0.0.1", days=3)
        await host.daemon.read_again()
        status, health = await host.health()
        assert (status, health["status"], health["ready"]) == (200, "degraded", True)
        assert "expires in 3.0 days" in health["reasons"][0]
        assert health["warnings"] == []
        assert "expires in 3.0 days" in host.daemon._status()


async def test_a_hosts_ca_that_has_ended_is_told_and_keeps_no_client_away(tmp_path: Path) -> None:
    pki = copied_pki(tmp_path / "pki")
    async with running(tmp_path, listen={"hosts_ca": str(pki.hosts_ca)}) as host:
        certificates = host.daemon._listener.certificates
        assert certificates is not None
        assert [held.file for held in certificates.held if held.owner is Owner.HOSTS_CA] == [
            str(pki.hosts_ca)
        ]
        certificates.held = tuple(
            replace(held, expires_at=time.time() - 1) if held.owner is Owner.HOSTS_CA else held
            for held in certificates.held
        )
        status, health = await host.health()
        assert (status, health["ready"]) == (200, True)
        assert "pki hosts --force --install" in health["reasons"][0]
        assert (await host.metrics())["certificate_expiry_timestamp_seconds", "hosts_ca"]


@pytest.mark.parametrize("ended", [Owner.HOST, Owner.CA])
async def test_a_certificate_that_has_ended_is_serious(tmp_path: Path, ended: Owner) -> None:
    async with running(tmp_path) as host:
        certificates = host.daemon._listener.certificates
        assert certificates is not None
        valid = certificates.held
        certificates.held = tuple(
            replace(held, expires_at=time.time() - 1) if held.owner is ended else held
            for held in valid
        )
        status, health = await host.health()
        assert (status, health["ready"]) == (503, False)
        assert "has expired" in health["reasons"][0]
        # An old CA beside one that is valid is no more than untidy.
        certificates.held += tuple(held for held in valid if held.owner is Owner.CA)
        assert (await host.health())[1]["ready"] is (ended is Owner.CA)


# --- roles -------------------------------------------------------------------------------------


async def test_a_monitor_reads_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, **MONITOR) as host:
        host.pki.issue_client("grafana")
        grafana = await host.client("grafana")
        await grafana.subscribe_events()
        assert await grafana.call("Host.getVMList") == []
        host.daemon._events.publish("|virt|VM_status|x", {})
        await grafana.wait_for_event(lambda e: True)
        for verb, params in (
            ("Host.setLogLevel", {"level": "DEBUG"}),
            ("Host.registerSecrets", {"secrets": []}),
        ):
            caplog.clear()
            with pytest.raises(RemoteError) as denied:
                await grafana.call(verb, params)
            assert denied.value.code == 75
            assert f"{verb} changes something, which role monitor of CN=grafana" in str(
                denied.value
            )
            lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
            assert len(lines) == 1
            assert lines[0].startswith(f"denied {verb} to CN=grafana,O=lab at 127.0.0.1:")
        await grafana.close()


async def test_roles_hold_over_https_and_pages_are_for_all(tmp_path: Path) -> None:
    async with running(tmp_path, **MONITOR) as host:
        host.pki.issue_client("grafana")
        for path in ("/metrics", "/health"):
            streams = await asyncio.open_connection("127.0.0.1", host.port, ssl=host.tls("grafana"))
            status, body = await get(*streams, path)
            assert status == 200
        body = b'{"jsonrpc":"2.0","method":"Host.setLogLevel","params":["INFO"],"id":1}'
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", host.port, ssl=host.tls("grafana")
        )
        writer.write(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert b'"code":75' in await reader.read()
        writer.close()


async def test_whoever_is_not_named_and_root_are_admin(tmp_path: Path) -> None:
    async with running(tmp_path, **MONITOR) as host:
        engine = await host.client()
        assert await engine.call("Host.setLogLevel", {"level": "INFO"}) is True
        await engine.close()


async def test_screens_and_documents_take_a_role_of_their_own(tmp_path: Path) -> None:
    roles = {"grafana": "monitor", "auditor": "viewer"}
    async with running(tmp_path, access={"roles": roles}) as host:
        for name in roles:
            host.pki.issue_client(name)
        grafana, auditor = await host.client("grafana"), await host.client("auditor")
        screenshot = "VM.screenshot", {"vmID": "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"}
        for call in (("Host.dumpxmls",), screenshot):
            with pytest.raises(RemoteError, match=r"shows what may be secret, .* role viewer in"):
                await grafana.call(*call)
        assert await auditor.call("Host.dumpxmls") == {}
        with pytest.raises(RemoteError, match="no VM"):
            await auditor.call(*screenshot)
        with pytest.raises(RemoteError, match="changes something, which role viewer of"):
            await auditor.call("Host.setLogLevel", {"level": "INFO"})
        await grafana.close()
        await auditor.close()


async def test_who_has_no_role_is_not_let_in_and_dismissed_when_it_loses_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = {"default_role": "none", "roles": {"cn=ENGINE, o=lab": "admin"}}
    async with running(tmp_path, access=access) as host:
        host.pki.issue_client("stranger")
        engine = await host.client()
        with pytest.raises(OSError):
            await host.client("stranger")
        assert "its role is none; give it another one in option access.roles" in caplog.text
        body = await https(host, "stranger", b"GET /metrics HTTP/1.0\r\n\r\n")
        assert body == b""
        await engine.subscribe_events()
        stream = await events(host)
        host.configure(access={"default_role": "none", "roles": {}})
        await host.daemon.read_again()
        with pytest.raises(SessionLost, match="its role is none"):
            await engine.wait_for_event(lambda e: False)
        assert await stream.read() == b""


async def test_a_revoked_certificate_is_refused_and_its_sessions_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = copied_pki(tmp_path / "pki")
    pki.issue_client("stolen")
    crl = revoke(pki)
    async with running(tmp_path, listen={"crl": str(crl)}) as host:
        engine, stolen = await host.client(), await host.client("stolen")
        stream = await events(host, "stolen")
        revoke(pki, "stolen")
        await host.daemon.read_again()
        with pytest.raises(SessionLost, match="its certificate was revoked"):
            await stolen.wait_for_event(lambda e: False)
        assert await stream.read() == b""
        with pytest.raises(OSError):
            await host.client("stolen")
        assert "certificate revoked" in caplog.text
        assert await engine.call("Host.ping2") is True
        again = await host.client()
        # What is no list is not in force, and what was stays so.
        crl.write_bytes(pki.ca.read_bytes())
        await host.daemon.read_again()
        assert "holds no list of revoked certificates, or more than that" in caplog.text
        with pytest.raises(OSError):
            await host.client("stolen")
        await again.close()
        await engine.close()


async def test_sessions_end_with_their_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as host:
        engine = await host.client()
        stream = await events(host)
        ends = host.daemon._listener._stomp.connections.copy().pop().caller.expires_at
        assert abs(ends - time.time() - 60 * 86400) < 3600
        monkeypatch.setattr(time, "time", lambda: ends + 1)
        # Nothing but the daemon's own look is needed.
        with pytest.raises(SessionLost, match="its certificate has expired; renew it"):
            await engine.wait_for_event(lambda e: False)
        assert await stream.read() == b""


async def test_hosts_of_their_own_authority_call_what_hosts_call_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pki = copied_pki(tmp_path / "pki")
    hosts = tmp_path / "hosts"
    words = ["pki", "hosts", "--dir", str(hosts), "--name", "host2", "--name", "127.0.0.1"]
    assert cli.main(words) == 0
    listen = {"hosts_ca": str(hosts / "certs/hostscacert.pem")}
    access = {"default_role": "none", "roles": {"engine": "admin", "host2": "admin"}}
    offer: Any = {"vmID": "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d", "params": {}}
    async with running(tmp_path, listen=listen, access=access) as host:
        own = Migration(
            certificate=str(hosts / "certs/hostcert.pem"), key=str(hosts / "keys/hostkey.pem")
        )
        address = Address("127.0.0.1", host.port)
        peer = await peer_client.connect(config.load(host.file).listen, address, own)
        session = peer._session
        with pytest.raises(RemoteError, match="migrationId is missing"):
            await session.call("VM.migrationCreate", offer)
        for verb in ("Host.getVMList", "Host.setLogLevel", "VM.destroy", "Host.dumpxmls"):
            with pytest.raises(RemoteError, match=f"{verb} is not for hosts, which CN=host2"):
                await session.call(verb, offer)
        # Nor does it hear what is for clients.
        await session.subscribe_events()
        host.daemon._events.publish("|virt|VM_status|x", {})
        with pytest.raises(RemoteError):
            await session.call("Host.ping2")
        assert not session._events
        for program in ("libvirt", "qemu"):
            tls = ssl.create_default_context(cafile=str(pki.ca))
            tls.load_cert_chain(
                hosts / f"certs/{program}cert.pem", hosts / f"keys/{program}key.pem"
            )
            with pytest.raises(OSError):
                await connect("127.0.0.1", host.port, tls)
        # Refusals of one address are told once in a while.
        assert "is a host's, but not one for the daemon; give it its own" in caplog.text
        engine = await host.client()
        with pytest.raises(RemoteError, match="migrationId is missing"):
            await engine.call("VM.migrationCreate", offer)
        await engine.close()
        await peer.close()


async def test_hosts_and_clients_of_one_authority_cannot_be_told_apart(tmp_path: Path) -> None:
    pki = copied_pki(tmp_path / "pki")
    with pytest.raises(config.ConfigError, match="hold a CA of the same name"):
        async with running(tmp_path, listen={"hosts_ca": str(pki.ca)}):
            raise AssertionError("it is not to start")


async def https(host: Whole, name: str, request: bytes) -> bytes:
    """What is answered to a request over HTTPS, all of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=host.tls(name))
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def events(host: Whole, name: str = "engine") -> asyncio.StreamReader:
    """A stream of events that has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=host.tls(name))
    writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b":subscribed\n\n\r\n")
    return reader


def revoke(pki: Pki, *names: str) -> Path:
    """Write the CA's list of revoked certificates: these."""
    key = serialization.load_pem_private_key(pki.ca.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    now = datetime.datetime.utcnow()
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=ca.subject, last_update=now, next_update=now + datetime.timedelta(days=1)
    )
    for name in names:
        number = x509.load_pem_x509_certificate(pki.identity(name).cert.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder(number, now).build()
        builder = builder.add_revoked_certificate(entry)
    crl = pki.directory / "ca.crl"
    crl.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return crl


# --- SIGHUP ------------------------------------------------------------------------------------


async def test_roles_and_log_level_are_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as host:
        host.pki.issue_client("grafana")
        grafana = await host.client("grafana")
        assert await grafana.call("Host.setLogLevel", {"level": "INFO"})
        host.configure(**MONITOR, log={"level": "DEBUG"}, vms={"spare_pcie_ports": 3})
        await host.daemon.read_again()
        assert logging.getLogger().level == logging.DEBUG
        with pytest.raises(RemoteError, match="role monitor"):
            await grafana.call("Host.setLogLevel", {"level": "INFO"})
        assert "changes that wait for a restart: vms.spare_pcie_ports" in caplog.text
        await grafana.close()


async def test_a_broken_configuration_stays_out_of_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, **MONITOR) as host:
        host.configure(access={"roles": {"grafana": "boss"}})
        await host.daemon.read_again()
        lines = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(lines) == 1
        assert "access.roles: grafana is 'boss'; expected one of admin, viewer" in lines[0]
        status, health = await host.health()
        assert (status, health["status"]) == (200, "degraded")
        assert "is 'boss'" in health["reasons"][0]
        host.configure()
        await host.daemon.read_again()
        assert (await host.health())[1]["status"] == "ready"


async def test_certificates_are_read_again_without_dropping_anyone(tmp_path: Path) -> None:
    async with running(tmp_path) as host:
        engine = await host.client()
        before = (await host.metrics())["certificate_expiry_timestamp_seconds", "host"]
        host.pki.renew_host("host", "127.0.0.1", days=90)
        await host.daemon.read_again()
        after = (await host.metrics())["certificate_expiry_timestamp_seconds", "host"]
        assert round((after - before) / 86400) == 30
        assert await engine.call("Host.ping2") is True
        await engine.close()


# --- the end -----------------------------------------------------------------------------------


def test_a_renewal_that_is_not_complete_is_no_wrong_configuration(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """systemd tries the one again and not the other; a renewal writes one file after the other."""
    pki = copied_pki(tmp_path / "pki")
    host, unit = pki.identity("host"), (REPOSITORY / "systemd/vdsm-cinderd.service").read_text()
    listen = {
        "certificate": str(host.cert),
        "key": str(host.key),
        "ca": str(pki.ca),
        "unix_socket": str(tmp_path / "socket"),
        "port": 0,
    }
    old_key, half = host.key.read_bytes(), host.cert.read_bytes()[:100]

    def started(**sections: object) -> int:
        content = {"libvirt": {"uri": "test:///default"}, "listen": listen, **sections}
        (tmp_path / "config").write_text(json.dumps(content))
        return daemon.main(["--config", str(tmp_path / "config")])

    pki.renew_host("host", "127.0.0.1", 60)
    host.key.write_bytes(old_key)
    assert started() == CERTIFICATES_UNUSABLE
    assert "listen.certificate and listen.key" in capfd.readouterr().err
    for path, content in ((host.cert, half), (host.key, b""), (pki.ca, b"")):
        whole = path.read_bytes()
        path.write_bytes(content)
        assert started() == CERTIFICATES_UNUSABLE
        path.unlink()
        assert started() == CERTIFICATES_UNUSABLE
        path.write_bytes(whole)
    assert started(log={"level": "LOUD"}) == WRONG_CONFIGURATION
    assert started(listen={**listen, "tls": False, "address": "192.0.2.1"}) == WRONG_CONFIGURATION
    assert re.findall(r"^RestartPreventExitStatus=(.*)", unit, re.M) == [str(WRONG_CONFIGURATION)]
    assert f'"$$EXIT_STATUS" = {WRONG_CONFIGURATION} ' in unit


def test_a_start_that_fails_is_told_even_when_closing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def hang(self: Daemon) -> None:
        await asyncio.sleep(60)

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(Daemon, "close", hang)
    monkeypatch.setattr(daemon, "STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(os, "_exit", leave)
    file, missing = tmp_path / "config", str(tmp_path / "cert.pem")
    listen = {"certificate": missing, "unix_socket": str(tmp_path / "socket"), "port": 0}
    file.write_text(json.dumps({"libvirt": {"uri": "test:///default"}, "listen": listen}))
    with pytest.raises(SystemExit, match=str(CERTIFICATES_UNUSABLE)):
        daemon.main(["--config", str(file)])
    assert missing in capfd.readouterr().err


@pytest.mark.parametrize("hangs", ["a file", "a name", ""])
def test_the_end_does_not_wait_for_a_thread_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """Such as one that asks a driver or a name server, or reads a file of a server that is gone."""
    gate, began, left = threading.Event(), threading.Event(), []
    start = Daemon.start

    def look(asked: object) -> list[object]:
        began.set()
        gate.wait(30)
        return []

    async def start_and_stop(self: Daemon) -> None:
        await start(self)
        loop = asyncio.get_running_loop()
        if hangs == "a file":
            loop.run_in_executor(None, look, None)
            await until(began.is_set, "no thread read the file")
        elif hangs == "a name":
            asked = asyncio.ensure_future(loop.getaddrinfo("ceph.example.com", 6789))
            await until(began.is_set, "no thread asked for the name")
            asked.cancel()
        # A call of libvirt's in that moment is one that is not waited for, too.
        await until(lambda: not self.calls_under_way, "libvirt to have answered all calls")
        os.kill(os.getpid(), signal.SIGTERM)

    def leave(code: int) -> None:
        gate.set()
        left.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(names, "_look", look)
    monkeypatch.setattr(Daemon, "start", start_and_stop)
    monkeypatch.setattr(daemon, "STOP_TIMEOUT_S", 2)
    monkeypatch.setattr(os, "_exit", leave)
    file = tmp_path / "config"
    listen = {"tls": False, "unix_socket": str(tmp_path / "socket"), "port": 0}
    file.write_text(json.dumps({"libvirt": {"uri": "test:///default"}, "listen": listen}))
    with contextlib.suppress(SystemExit):
        daemon.main(["--config", str(file)])
    assert left == ([0] if hangs else [])
