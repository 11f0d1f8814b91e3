# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions with a real daemon on libvirt's test driver, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from cinderengine.errors import NotFound, Unavailable
from cinderengine.hosts import session as sessions
from cinderengine.hosts.keeper import Changes
from cinderengine.hosts.keys import OURS, HostKey
from cinderengine.hosts.session import KeysRefused, Pace
from cinderengine.model.hosts import HostStatus as S
from cinderengine.model.secret import Secret
from lab.engine import client_context, new_id
from lab.host.local import HOST
from lab.pki import make_pki
from tests.engine.unit.hosts import daemons
from tests.engine.unit.hosts.daemons import EngineSide, engine_of, host_of, local_daemon
from tests.faults import pluggable
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client

VALUE = "QVFEc2VjcmV0a2V5dmFsdWU="


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with local_daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@contextlib.asynccontextmanager
async def somebody(daemon):
    """Another client of the daemon."""
    context = client_context(daemon.pki, daemon.pki.engine)
    session = await client.connect(HOST, daemon.port, context)
    try:
        yield session
    finally:
        session.abort()


async def registered(daemon) -> list[str]:
    async with somebody(daemon) as session:
        return [one["uuid"] for one in await session.call("Host.getSecrets")]


async def until(done) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(30):
        while not await done():  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.02)


async def test_a_host_is_up_with_its_keys_and_tells_of_itself(daemon) -> None:
    key = HostKey(new_id(), Secret(VALUE))
    async with engine_of(daemon) as side:
        side.wanted = [key]
        await side.until(S.UP)
        assert await registered(daemon) == [key.uuid]

        async def has_statistics() -> bool:
            return side.hosts.facts("h1").statistics.memory_free_bytes is not None

        await until(has_statistics)
        facts = side.hosts.facts("h1")
    assert facts.is_connected
    assert "librbd1" in facts.capabilities.packages
    assert (facts.capabilities.memory_bytes or 0) > 2**27
    assert (facts.capabilities.online_cpus or 0) >= 1
    assert "4.5" in facts.capabilities.engines
    assert facts.heard_ms > 0
    assert facts.statistics.vms == 0
    assert not side.hosts.facts("h1").is_connected


async def test_a_key_that_is_lost_or_added_comes_and_one_that_is_removed_goes(daemon) -> None:
    first, second = HostKey(new_id(), Secret(VALUE)), HostKey(new_id(), Secret(VALUE))
    async with engine_of(daemon) as side:
        side.wanted = [first]
        await side.until(S.UP)
        async with somebody(daemon) as session:
            await session.call("Host.unregisterSecrets", {"uuids": [first.uuid]})

        async def is_back() -> bool:
            return await registered(daemon) == [first.uuid]

        await until(is_back)
        side.wanted = [second]
        assert await side.hosts.deliver("h1")
        assert await registered(daemon) == [second.uuid]
        side.wanted = []
        assert await side.hosts.deliver("h1")
        assert await registered(daemon) == []
        assert side.told[-1] == (S.UP, "")


async def test_the_hosts_log_says_of_which_flow_a_delivery_is(daemon) -> None:
    async with engine_of(daemon) as side:
        await side.until(S.UP)
        side.wanted = [HostKey(new_id(), Secret(VALUE))]
        assert await side.hosts.deliver("h1", "flow-of-keys-7")
        side.wanted = []
        assert await side.hosts.deliver("h1", "flow-of-keys-8")
    log = daemon.log.read_text()
    assert "[flow flow-of-keys-7]: Host.registerSecrets called" in log
    assert "[flow flow-of-keys-8]: Host.unregisterSecrets called" in log


async def test_a_key_that_was_removed_while_others_were_brought_is_not_brought_again(
    daemon, monkeypatch
) -> None:
    async with engine_of(daemon) as side:
        await side.until(S.UP)
        session, asked = side.hosts.session("h1"), []
        real = session._call

        async def call(of, verb, *rest):
            asked.append(verb)
            return await real(of, verb, *rest)

        async def is_looked_at() -> bool:
            return "Host.getVMList" in asked

        async def is_asked_for_keys() -> bool:
            return "Host.getSecrets" in asked

        async with session._delivering:
            monkeypatch.setattr(session, "_call", call)
            side.wanted = [HostKey(new_id(), Secret(VALUE))]
            await until(is_looked_at)
            side.wanted = []
        await until(is_asked_for_keys)
    assert "Host.registerSecrets" not in asked


async def test_a_key_that_the_host_refuses_is_told_without_its_value_and_keeps_no_other_away(
    daemon, caplog
) -> None:
    bad, good = HostKey(new_id(), Secret("no base64 at all")), HostKey(new_id(), Secret(VALUE))
    async with engine_of(daemon) as side:
        await side.until(S.UP)
        side.wanted = [bad, good]
        with pytest.raises(KeysRefused, match=f"did not take authentication key {bad.uuid}"):
            await side.hosts.deliver("h1")
        assert await registered(daemon) == [good.uuid]
        reason = await side.until(S.NON_OPERATIONAL, bad.uuid)
        side.wanted = []
        await side.until(S.UP)
    assert "no base64" not in reason + caplog.text
    assert VALUE not in caplog.text


async def test_maintenance_waits_for_the_last_vm_and_takes_our_keys_alone(daemon) -> None:
    ours, theirs, vm_id = HostKey(new_id(), Secret(VALUE)), new_id(), new_id()
    by_hand = {"uuid": theirs, "usageType": "ceph", "usageID": f"ovirt/{theirs}", "password": VALUE}
    async with somebody(daemon) as session, engine_of(daemon) as side:
        side.wanted = [ours]
        await side.until(S.UP)
        await session.call("Host.registerSecrets", {"secrets": [by_hand]})
        vm = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
        await session.call("VM.create", vm)
        side.hosts.deactivate("h1")
        reason = await side.until(S.PREPARING_FOR_MAINTENANCE, "1 virtual machines")
        assert vm_id in reason
        assert not await side.hosts.deliver("h1")
        await session.call("VM.destroy", {"vmID": vm_id})
        await side.until(S.MAINTENANCE)
        assert await registered(daemon) == [theirs]
        await session.call("Host.unregisterSecrets", {"uuids": [theirs]})
        side.hosts.activate("h1")
        await side.until(S.UP)
        assert await registered(daemon) == [ours.uuid]
        side.wanted = []
        await side.hosts.deliver("h1")


async def test_a_vm_that_begins_is_known_by_its_event(daemon, monkeypatch) -> None:
    async with somebody(daemon) as session, engine_of(daemon) as side:
        await side.until(S.UP)
        # From here on nothing is asked for: what comes, comes as an event.
        monkeypatch.setattr(side.hosts.session("h1"), "_look", asyncio.Event().wait)
        vm_id = new_id()
        await session.call("VM.create", {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)})

        async def is_known() -> bool:
            return side.hosts.facts("h1").vms.get(vm_id) == "Up"

        await until(is_known)
        await session.call("VM.destroy", {"vmID": vm_id})


@pytest.mark.parametrize(
    ("event", "verb"),
    [
        ("|net|host_conn|no_id", "Host.getCapabilities"),
        ("|host|secrets_missing|h", "Host.registerSecrets"),
        ("|ceph|cluster_status|fsid", "Host.getStats"),
    ],
)
async def test_what_an_event_tells_of_is_looked_at_at_once(
    daemon, monkeypatch, event, verb
) -> None:
    # Nothing is looked at by itself.
    monkeypatch.setattr(daemons, "PACE", Pace(look_s=3600.0, again_s=3600.0))
    async with engine_of(daemon) as side:
        side.wanted = [HostKey(new_id(), Secret(VALUE))]
        await side.until(S.UP)
        session, asked = side.hosts.session("h1"), []

        async def has_looked() -> bool:
            return session.facts.statistics.vms is not None

        await until(has_looked)
        real = session._call

        async def call(of, called, *rest):
            asked.append(called)
            return await real(of, called, *rest)

        async def is_asked() -> bool:
            return verb in asked

        monkeypatch.setattr(session, "_call", call)
        session.hear({"method": event, "params": {}})
        await until(is_asked)
        side.wanted = []
        await side.hosts.deliver("h1")


async def test_a_host_without_librbd_is_not_operational_until_it_has_it(
    daemon, monkeypatch
) -> None:
    monkeypatch.setattr(sessions, "LIBRBD", "librbd7")
    async with engine_of(daemon) as side:
        reason = await side.until(S.NON_OPERATIONAL)
        assert reason.startswith("host node1 has no librbd, so its virtual machines cannot have")
        monkeypatch.undo()
        await side.until(S.UP)


async def test_a_host_of_other_engines_is_not_operational(daemon, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "ENGINE_VERSION", "9.9")
    async with engine_of(daemon) as side:
        reason = await side.until(S.NON_OPERATIONAL)
    assert "does not work with engines of version 9.9 (with 4.2, 4.3, 4.4, 4.5 it does)" in reason


async def test_a_certificate_of_another_authority_is_refused(daemon, tmp_path) -> None:
    others = make_pki(tmp_path / "pki", {"other": HOST})
    async with engine_of(daemon) as side:
        await side.until(S.UP)
    side = EngineSide(daemon)
    side.context = lambda: client_context(others, daemon.pki.engine)
    side.hosts.begin([host_of(daemon)])
    reason = await side.until(S.NON_OPERATIONAL)
    assert (
        f"the certificate of host node1 at {HOST}:{daemon.port} is of another authority" in reason
    )
    # It is dialled on, and comes up as soon as it is trusted.
    side.context = lambda: client_context(daemon.pki, daemon.pki.engine)
    await side.until(S.UP)
    await side.close()


async def test_a_certificate_for_another_name_is_refused(daemon) -> None:
    host = dataclasses.replace(host_of(daemon), address="127.0.0.2")
    async with engine_of(daemon, host) as side:
        # The daemon listens on 127.0.0.1 alone; a context that looks for another name is as good.
        await side.until(S.NON_RESPONSIVE, "cannot be reached (Connection refused)")
    side = EngineSide(daemon)

    class OfAnotherName(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
            return super().wrap_bio(*args, **{**named, "server_hostname": "node9.example.com"})

    def of_another_name() -> ssl.SSLContext:
        context = OfAnotherName(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(daemon.pki.ca)
        context.load_cert_chain(daemon.pki.engine.cert, daemon.pki.engine.key)
        return context

    side.context = of_another_name
    side.hosts.begin([host_of(daemon)])
    reason = await side.until(S.NON_OPERATIONAL)
    assert f"does not name {HOST}" in reason
    await side.close()


async def test_a_host_that_does_not_take_the_engines_certificate_says_so(daemon) -> None:
    async with engine_of(daemon, identity=daemon.pki.foreign) as side:
        # The daemon hangs up without a word: Python's servers send no alert of a handshake's end.
        reason = await side.until(S.NON_RESPONSIVE, "did not let the engine in")
    assert "have it join this engine" in reason


async def test_a_host_that_is_not_there_is_not_responsive_after_the_grace(daemon) -> None:
    host = dataclasses.replace(host_of(daemon), port=1)
    async with engine_of(daemon, host) as side:
        reason = await side.until(S.CONNECTING, "Connection refused")
        assert "check the network to it and that vdsm-cinderd runs there" in reason
        await side.until(S.NON_RESPONSIVE, "Connection refused")
        assert not await side.hosts.deliver("h1")
        side.hosts.deactivate("h1")
        await side.until(S.MAINTENANCE)


async def test_a_daemon_that_restarts_is_up_again_with_its_keys(tmp_path) -> None:
    key = HostKey(new_id(), Secret(VALUE))
    with local_daemon(tmp_path / "one") as daemon:
        port = daemon.port
        host = host_of(daemon)
        side = EngineSide(daemon)
        side.wanted = [key]
        side.hosts.begin([host])
        await side.until(S.UP)
    await side.until(S.CONNECTING)
    with local_daemon_again(tmp_path / "one", port) as daemon:
        await side.until(S.UP)
        assert await registered(daemon) == [key.uuid]
        await side.close()


def local_daemon_again(directory: Path, port: int):
    """The daemon of before, with its certificates."""
    (directory / "pki").rename(directory / "old")
    daemon = local_daemon(directory, port)
    shutil.rmtree(directory / "pki")
    (directory / "old").rename(directory / "pki")
    return daemon


async def test_a_host_that_says_later_counts_as_it_did_for_some_time(daemon, monkeypatch) -> None:
    async with engine_of(daemon) as side:
        await side.until(S.UP)
        session = side.hosts.session("h1")
        told = len(side.told)
        real, asked = session._call, []

        async def later(of, verb, params, flow_id=None):
            asked.append(verb)
            raise RemoteError(40, "libvirt is not there", {})

        monkeypatch.setattr(session, "_call", later)
        reason = await side.until(S.NON_OPERATIONAL)
        assert len(side.told) == told + 1
        assert len(asked) > 3  # it was asked again before
        assert "libvirt is not there" in reason
        monkeypatch.setattr(session, "_call", real)
        await side.until(S.UP)


async def test_what_cannot_be_kept_now_is_told_again_and_of_a_host_the_newest_alone() -> None:
    told, full = [], [True]

    async def on_change(host_id, status, reason) -> None:
        if full:
            full.pop()
            changes.put("h2", S.CONNECTING, "")
            changes.put("h2", S.UP, "")
            raise Unavailable("the database is full; make room")
        told.append((host_id, status))
        if len(told) == 2:
            done.set()

    changes, done = Changes(on_change), asyncio.Event()
    changes.put("h1", S.UP, "")
    telling = asyncio.create_task(changes.tell())
    async with asyncio.timeout(30):
        await done.wait()
    telling.cancel()
    assert sorted(told) == [("h1", S.UP), ("h2", S.UP)]


async def test_an_unknown_host_is_not_found(daemon) -> None:
    side = EngineSide(daemon)
    with pytest.raises(NotFound):
        side.hosts.activate("h9")
    assert not side.hosts.facts("h9").is_connected
    await side.hosts.forget("h9")
    await side.close()


def test_our_usage_is_one_that_hosts_list() -> None:
    assert OURS.startswith("ovirt/")
