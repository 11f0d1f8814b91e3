# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab, a daemon on host1 and an engine that talks to it, for all functional tests.

They run inside the lab's network: `make functional`, or, for one test while a lab runs,
`python -m lab exec -- .venv/bin/pytest tests/functional/...`. host1 and its daemon are shared by
all tests; what breaks a daemon or its libvirtd happens on host2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from lab.engine import Engine, new_id
from lab.host.daemon import HostDaemon
from lab.host.hypervisor import Host
from lab.running import Lab
from lab.systemd.installed import RpmDaemon
from tests.functional.guests import Guest, new_guest
from tests.functional.helpers import OPTIONS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is alike in all ways of installing is tried in one of them by day, in each at night."""
    alike = [item for item in items if item.get_closest_marker("alike")]
    for item in alike:
        assert isinstance(item, pytest.Function)
        if item.callspec.params["daemon"] is not RpmDaemon:
            item.add_marker("nightly")


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab.attach()


@pytest.fixture(scope="session")
def host(lab: Lab) -> Host:
    return lab.hosts["host1"]


@pytest.fixture(scope="session")
def daemon(lab: Lab, host: Host) -> Iterator[HostDaemon]:
    with HostDaemon(host, lab.pki, OPTIONS) as daemon:
        yield daemon
    # What nobody thought of comes as far as the event loop, and harms no test.
    assert "Traceback" not in daemon.log.read_text()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(lab: Lab, daemon: HostDaemon) -> AsyncIterator[Engine]:
    """An engine with the Ceph key registered; it destroys what its tests left."""
    async with Engine(lab, daemon) as engine:
        await engine.register_key()
        yield engine
        for vm in await engine.call("Host.getVMList"):
            await engine.destroy(vm["vmId"])
        await engine.call("Host.registerSecrets", secrets=[], clear=True)


@pytest.fixture
def image(lab: Lab) -> Iterator[Callable[..., str]]:
    """Makes images of the lab's pool; those that nobody has open any more go with the test."""
    made: list[str] = []

    def make(size_mib: int = 64, source: Path | None = None) -> str:
        made.append(f"volume-{new_id()}")
        lab.ceph.create_image(made[-1], size_mib, source)
        return made[-1]

    yield make
    for name in made:
        if not lab.ceph.watchers(name):
            lab.ceph.remove_image(name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guest(engine: Engine) -> AsyncIterator[Guest]:
    """A VM with agent, display and CD drive for tests that leave it as it was."""
    async with new_guest(engine) as guest:
        yield guest
