# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts in the database: added, joined, edited, removed; what their sessions are told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cinderengine.errors import Conflict, Incomplete, NotFound, Unauthenticated
from cinderengine.flows.centers import add_defaults
from cinderengine.flows.hosts import Hosts, Joining, NewHost
from cinderengine.hosts.joining import UNITS, Request, Trust
from cinderengine.model.hosts import HostStatus
from cinderengine.model.secret import Secret
from cinderengine.store.entities import clusters, events, hosts
from tests.engine.unit.flows.whole import ADMIN

FINGERPRINT = "ab" * 32
URL = "https://engine.example.org"


class Keeper:
    """Writes down what it is told, as (method, host's id or host)."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda about: self.told.append((name, about))

    async def change(self, host):
        self.told.append(("change", host))

    async def forget(self, host_id):
        self.told.append(("forget", host_id))


def sign(names, requests):
    return {unit: f"{unit} of {names[0]}" for unit in requests}


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def flows(store, keeper):
    how = Joining(URL, FINGERPRINT, Trust("CN=engine", "clients", "hosts"), sign, ["engine"])
    return Hosts(store, keeper, lambda: how)


@pytest_asyncio.fixture
async def cluster(store):
    await store.write(add_defaults)
    (cluster,) = await store.read(clusters.all)
    return cluster


@pytest_asyncio.fixture
async def added(flows, cluster):
    return await flows.add(NewHost("one", cluster.id, "10.0.0.1"), ADMIN)


def request_with(added, **more):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    token = Secret(added.line.split()[-1])
    given = Request(token, ("one.example.org",), 54321, "hw", dict.fromkeys(UNITS, pem))
    return replace(given, **more)


async def test_a_host_waits_until_it_has_joined(flows, store, keeper, added):
    assert added.line.startswith(f"vdsm-cinder join {URL} join1.")
    assert added.host.status is HostStatus.PENDING_APPROVAL
    assert keeper.told == [("keep", added.host)]
    assert await store.read(hosts.all) == [added.host]
    assert added.line.split()[-1] not in str(await store.read(hosts.all))
    answer = await flows.join(request_with(added))
    assert answer.certificates["libvirt"] == "libvirt of 10.0.0.1"
    (host,) = await store.read(hosts.all)
    assert (host.address, host.hardware_id) == ("10.0.0.1", "hw")
    assert keeper.told[1:] == [("change", answer.host), ("joined", host.id)]


async def test_a_token_is_one_machines(flows, added):
    request = request_with(added)
    await flows.join(request)
    await flows.join(request)
    with pytest.raises(Conflict, match="was used by another machine already"):
        await flows.join(request_with(added))
    with pytest.raises(Unauthenticated, match="the token is not good"):
        await flows.join(request_with(added, token=Secret("join1.x")))


async def test_a_host_may_be_let_in_anew(flows, added):
    await flows.join(request_with(added))
    again = await flows.renew_token(added.host.id, ADMIN)
    assert again.line != added.line
    with pytest.raises(Unauthenticated):
        await flows.join(request_with(added))
    await flows.join(request_with(again))


async def test_what_cannot_be_is_refused(flows, cluster, added):
    for new, kind, words in (
        (NewHost("one", cluster.id, "10.0.0.2"), Conflict, "the name one is that of another host"),
        (NewHost("two", cluster.id, "10.0.0.1"), Conflict, "the address 10.0.0.1 is that of"),
        (NewHost("", cluster.id), Incomplete, "the host has no name; give it one"),
        (NewHost("two", "none"), NotFound, "no cluster has the id none"),
    ):
        with pytest.raises(kind, match=words):
            await flows.add(new, ADMIN)
    # Those that say their address when they join have none until then.
    await flows.add(NewHost("two", cluster.id), ADMIN)
    await flows.add(NewHost("three", cluster.id), ADMIN)


async def test_what_a_host_is_becomes_known(flows, store, added):
    host_id = added.host.id
    await flows.on_change(host_id, HostStatus.UP, "")
    await flows.on_change(host_id, HostStatus.UP, "")
    await flows.on_change(host_id, HostStatus.NON_RESPONSIVE, "it does not answer; look at it")
    (host,) = await store.read(hosts.all)
    assert (host.status, host.reason) == (
        HostStatus.NON_RESPONSIVE,
        "it does not answer; look at it",
    )
    told = [event.description for event in await store.read(events.all)]
    assert told[1:] == [
        "Host one is up.",
        "Host one is non_responsive: it does not answer; look at it.",
    ]
    # Of one that was removed meanwhile nothing is kept.
    await flows.on_change("gone", HostStatus.UP, "")


async def test_a_host_that_is_not_in_maintenance_stays(flows, store, keeper, added, cluster):
    host_id = added.host.id
    await flows.on_change(host_id, HostStatus.UP, "")
    with pytest.raises(Conflict, match="host one is up; put it into maintenance before it is rem"):
        await flows.remove(host_id, ADMIN)
    await flows.deactivate(host_id, ADMIN)
    assert keeper.told[-1] == ("deactivate", host_id)
    await flows.on_change(host_id, HostStatus.MAINTENANCE, "")
    edited = await flows.edit(host_id, ADMIN, name="new", comment="c")
    assert (edited.name, edited.status, edited.wanted) == ("new", HostStatus.MAINTENANCE, False)
    await flows.activate(host_id, ADMIN)
    assert keeper.told[-1] == ("activate", host_id)
    await flows.remove(host_id, ADMIN)
    assert keeper.told[-1] == ("forget", host_id)
    assert await store.read(hosts.all) == []
