# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that runs with what joining gave it: whom it lets in, and who takes it for what it is.

The command, the daemon, the engine's authorities and its session are the real ones.
"""

from __future__ import annotations

import socket
import ssl

import pytest

from cinderengine.model.hosts import Host, HostStatus
from lab.host.local import HOST, LocalDaemon
from tests.engine.unit.hosts import with_secrets
from tests.engine.unit.hosts.daemons import EngineSide, host_of
from tests.engine.unit.hosts.joins import JoiningEngine
from tests.faults import pluggable
from vdsmcinder import config
from vdsmcinder.client import cli
from vdsmcinder.client.doctor import authorities
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with JoiningEngine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where libvirt's etc is."""
    root = tmp_path_factory.mktemp("root")
    (root / "etc/libvirt").mkdir(parents=True)
    (root / "etc/libvirt/libvirtd.conf").touch()
    return root


def free_port() -> int:
    """One that nobody listens at: the engine is told it before the daemon runs."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, engine, root):
    directory = tmp_path_factory.mktemp("daemon")
    own = directory / "own"
    listen = {
        "tls": True,
        "port": free_port(),
        "certificate": str(own / "certs/vdsmcert.pem"),
        "key": str(own / "keys/vdsmkey.pem"),
        "ca": str(own / "certs/cacert.pem"),
    }
    options = {**pluggable.host(directory), "listen": listen}
    daemon = LocalDaemon(directory, options, program=with_secrets.PROGRAM)
    where = ["--config", str(directory / "vdsm-cinder.yaml"), "--root", str(root)]
    token = engine.token_for(Host("h1", "node1", HOST, "c1"))
    assert cli.main(["join", *where, engine.url, token]) == 0
    with daemon:
        yield daemon


async def test_the_engine_that_it_joined_has_it_up(daemon, engine) -> None:
    side = EngineSide(daemon)
    side.context = engine.to_hosts
    side.hosts.begin([host_of(daemon)])
    await side.until(HostStatus.UP)
    await side.close()
    assert "CN=engine,OU=engine,O=vdsm-cinder, role admin" in daemon.log.read_text()


async def test_an_engine_of_another_authority_does_not_take_it(daemon, tmp_path) -> None:
    with JoiningEngine(tmp_path / "other") as other:
        side = EngineSide(daemon)
        side.context = other.to_hosts
        side.hosts.begin([host_of(daemon)])
        reason = await side.until(HostStatus.NON_OPERATIONAL)
        await side.close()
    assert "is of another authority than this engine's" in reason


@pytest.mark.parametrize("pair", ["vdsm", "libvirt", "qemu"])
async def test_what_the_host_has_makes_nobody_its_client(daemon, engine, pair) -> None:
    own = daemon.directory / "own"
    context = ssl.create_default_context(cadata=engine.authorities.clients_pem)
    context.load_cert_chain(own / f"certs/{pair}cert.pem", own / f"keys/{pair}key.pem")
    with pytest.raises(OSError):
        session = await client.connect(HOST, daemon.port, context)
        await session.call("Host.getVMList")


async def test_another_hosts_daemon_may_call_what_hosts_call_and_nothing_else(
    daemon, engine
) -> None:
    own = daemon.directory / "own"
    context = ssl.create_default_context(cadata=engine.authorities.clients_pem)
    context.load_cert_chain(own / "certs/hostcert.pem", own / "keys/hostkey.pem")
    session = await client.connect(HOST, daemon.port, context)
    with pytest.raises(RemoteError, match="code 75"):
        await session.call("Host.getVMList")
    session.abort()


async def test_the_doctor_has_nothing_against_its_certificates(daemon, root) -> None:
    settings = config.load(daemon.directory / "vdsm-cinder.yaml")
    assert await authorities.look(settings, root) == []
