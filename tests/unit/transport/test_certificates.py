# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates that change while clients are connected, and how long they hold."""

from __future__ import annotations

import asyncio
import calendar
import shutil
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.base import run
from tests.unit.transport.serving import Host, listening, until
from vdsmcinder.client.pki import certificates as issued
from vdsmcinder.stomp.client import connect
from vdsmcinder.transport import certificates, tls


async def shown_serial(host: Host) -> str:
    """The serial number of the certificate that the host shows to a new client."""
    _, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=host.engine_tls)
    serial: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return serial


class Looks:
    """Counts how often a file was looked at; there are three."""

    def __init__(self) -> None:
        self.count = 0
        self._stamp = certificates._stamp

    def __call__(self, path: str) -> object:
        self.count += 1
        return self._stamp(path)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Makes them frequent."""
    looks = Looks()
    monkeypatch.setattr(certificates, "POLL_S", 0.01)
    monkeypatch.setattr(certificates, "_stamp", looks)
    return looks


def renew(host: Host, days: int = 30) -> None:
    host.pki.renew_host("host", "127.0.0.1", days)


@pytest.mark.usefixtures("looks")
async def test_changed_files_are_used_for_new_clients_and_old_ones_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with listening(tmp_path, tls=True) as host:
        engine = await connect("127.0.0.1", host.port, host.engine_tls)
        old = await shown_serial(host)
        renew(host)
        await until(lambda: "were read again" in caplog.text, "the new files were not read")
        assert await shown_serial(host) != old
        assert await engine.call("echo", {"still": "here"}) == {"still": "here"}
        await engine.close()


@pytest.mark.usefixtures("looks")
async def test_no_file_is_read_on_the_loop_once_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be on a disk that is slow, and every client would wait for it."""
    caplog.set_level("INFO")
    threads = []
    stamp, context = certificates._stamp, tls.server_context

    def noted(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def note(what: Any) -> Any:
            threads.append(threading.current_thread())
            return read(what)

        return note

    async with listening(tmp_path, tls=True) as host:
        monkeypatch.setattr(certificates, "_stamp", noted(stamp))
        monkeypatch.setattr(tls, "server_context", noted(context))
        renew(host)
        await until(lambda: "were read again" in caplog.text, "the new files were not read")
        assert len(threads) > 6 and threading.main_thread() not in threads


async def test_a_broken_file_keeps_the_old_one_in_force_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, looks: Looks
) -> None:
    async with listening(tmp_path, tls=True) as host:
        kept = host.listener.certificates
        assert kept is not None
        old = await shown_serial(host)
        host.pki.identity("host").cert.write_text("not a certificate")
        await until(lambda: kept.trouble, "the broken file was not noticed")
        seen = looks.count
        await until(lambda: looks.count > seen + 30, "the files were not looked at any more")
        assert await shown_serial(host) == old
        errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert len(errors) == 1
        assert "stay in force: listen.certificate and listen.key" in errors[0]
        renew(host)
        await until(lambda: not kept.trouble, "the mended file was not noticed")
        assert await shown_serial(host) != old


async def test_a_file_that_is_gone_keeps_the_old_one_in_force(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        kept = host.listener.certificates
        assert kept is not None
        host.pki.identity("host").key.unlink()
        await kept.reload()
        assert "listen.key" in kept.trouble
        assert "cannot be read: No such file" in kept.trouble
        await shown_serial(host)


async def test_a_ca_that_is_replaced_shuts_its_clients_out(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        trusting = host.engine_tls
        shutil.copy(host.pki.directory / "foreign-ca.pem", host.listen.ca)
        assert host.listener.certificates is not None
        await host.listener.certificates.reload()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect("127.0.0.1", host.port, trusting)


@pytest.mark.parametrize("days", [3, 40 * 365])
async def test_how_long_a_certificate_holds(tmp_path: Path, days: int) -> None:
    async with listening(tmp_path, tls=True) as host:
        renew(host, days)  # after 2050 the date has another form
        told = run(["openssl", "x509", "-enddate", "-noout", "-in", host.listen.certificate])
        end = time.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
        pem = host.pki.identity("host").cert.read_bytes()
        assert certificates.not_after(b"\xff a comment\n" + pem + pem) == calendar.timegm(end)
        trusted = pem.replace(b" CERTIFICATE", b" TRUSTED CERTIFICATE")
        assert certificates.not_after(trusted) == calendar.timegm(end)


@given(name=st.text("abc", min_size=1, max_size=60), days=st.integers(0, 90 * 365))
def test_its_end_is_what_cryptography_reads(name: str, days: int) -> None:
    certificate = issued.Authority.made(name, days).certificate
    read = certificates.not_after(issued.certificate_pem(certificate))
    assert read == issued.ends(certificate).timestamp()
