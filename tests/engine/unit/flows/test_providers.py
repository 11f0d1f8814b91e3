# SPDX-License-Identifier: GPL-2.0-or-later
"""Providers, their storage domains and their keys: what is stored, what is refused, who gets it."""

from __future__ import annotations

import pytest
import pytest_asyncio

from cinderengine.errors import (
    Conflict,
    EngineError,
    Incomplete,
    Invalid,
    NotFound,
    OutsideError,
    Unavailable,
)
from cinderengine.flows.disks import NewDisk
from cinderengine.flows.keys import NewKey
from cinderengine.flows.providers import NewProvider
from cinderengine.jobs import book
from cinderengine.model.domains import DomainStatus
from cinderengine.model.hosts import Host, HostStatus
from cinderengine.model.jobs import JobStatus, StepStatus
from cinderengine.model.secret import Secret
from cinderengine.store.entities import (
    authentication_keys,
    clusters,
    data_centers,
    events,
    hosts,
    jobs,
    providers,
    storage_domains,
)
from cinderengine.volumes.service import Volume, VolumeStatus
from tests.engine.unit.flows.memory import World
from tests.engine.unit.flows.whole import ADMIN, Whole, settle_in

UUID = "0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2"
KEY = Secret("QVFBQWFhYWFhYWFhYWFhYQ==")


@pytest_asyncio.fixture
async def whole(store):
    """With the provider ceph, whose storage domain is active, and two hosts, of which one is up."""
    whole = Whole(store, World())
    await settle_in(whole)
    (cluster,) = await store.read(clusters.all)
    for name, status in (("up", HostStatus.UP), ("away", HostStatus.NON_RESPONSIVE)):
        await store.write(hosts.insert, Host(name, name, name, cluster.id, status=status))
    return whole


@pytest_asyncio.fixture
async def center(whole):
    (center,) = await whole.store.read(data_centers.all)
    return center


@pytest_asyncio.fixture
async def provider(whole):
    (provider,) = await whole.store.read(providers.all)
    return provider


async def domain(whole):
    return await whole.store.read(storage_domains.get, whole.domain_id)


async def key_added(whole, provider):
    key = await whole.keys.add(provider.id, NewKey(UUID.upper(), KEY), ADMIN)
    await whole.done()
    return key


async def test_a_provider_comes_with_its_storage_domain(whole, center):
    found = await domain(whole)
    assert (found.name, found.status) == ("ceph", DomainStatus.ACTIVE)
    # Who asks at once is told its room.
    assert (found.used_bytes, found.available_bytes) == (1, 2)
    assert found.data_center_id == center.id


async def test_without_a_data_center_the_domain_is_unattached(whole):
    provider = await whole.providers.add(NewProvider("other", "rbd://mon/other"), ADMIN)
    found = await whole.store.read(storage_domains.find, provider_id=provider.id)
    assert (found.status, found.data_center_id) == (DomainStatus.UNATTACHED, None)


@pytest.mark.parametrize(
    ("new", "kind", "words"),
    [
        (NewProvider("", "rbd://mon/a"), Incomplete, "the provider has no name; give it one"),
        (NewProvider("a", ""), Incomplete, "has no URL; give it Cinder's, or rbd://"),
        (NewProvider("ceph", "rbd://mon/a"), Conflict, "the name ceph is that of another"),
        (NewProvider("a", "rbd://mon/volumes"), Conflict, "that of another provider; choose"),
        (NewProvider("a\0", "rbd://mon/a"), Invalid, "at most 255 printable characters"),
        (
            NewProvider("a", "rbd://mon/a", data_center_id="none"),
            NotFound,
            "no data center has the id none; list those that there are",
        ),
    ],
)
async def test_what_cannot_be_a_provider_is_refused(whole, new, kind, words):
    with pytest.raises(kind, match=words):
        await whole.providers.add(new, ADMIN)
    assert len(await whole.store.read(providers.all)) == 1


async def test_one_that_does_not_answer_is_not_stored(whole, provider):
    whole.world.failing["check"] = Unavailable("no monitor can be reached; start one")
    with pytest.raises(Unavailable, match="no monitor"):
        await whole.providers.add(NewProvider("a", "rbd://mon/a"), ADMIN)
    assert len(await whole.store.read(providers.all)) == 1
    with pytest.raises(Unavailable, match="no monitor"):
        await whole.providers.edit(provider.id, ADMIN, url="rbd://mon/b")
    assert await whole.store.read(providers.get, provider.id) == provider
    # What has nothing to do with the way there may be edited all the same.
    edited = await whole.providers.edit(provider.id, ADMIN, name="new", description="d")
    assert (edited.name, (await domain(whole)).name) == ("new", "new")


async def test_passwords_are_sealed(whole):
    new = NewProvider("a", "rbd://mon/a", username="u", password=Secret("geheim"))
    provider = await whole.providers.add(new, ADMIN)
    with whole.store.engine.connect() as conn:
        rows = str(conn.exec_driver_sql("SELECT * FROM providers").all())
    assert "geheim" not in rows
    assert provider.sealed_password
    edited = await whole.providers.edit(provider.id, ADMIN, password=Secret(""))
    assert edited.sealed_password == ""


async def test_a_provider_goes_when_nothing_of_it_is_left(whole, provider):
    disk = await whole.disks.add(NewDisk("one", whole.domain_id, 1 << 30), ADMIN)
    await whole.done()
    with pytest.raises(Conflict, match="its storage domain is active; deactivate the domain"):
        await whole.providers.remove(provider.id, ADMIN)
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    with pytest.raises(Conflict, match="has 1 disks; remove the disks first"):
        await whole.providers.remove(provider.id, ADMIN)
    await whole.domains.activate(whole.domain_id, ADMIN)
    await whole.disks.remove(disk.id, ADMIN)
    await whole.done()
    await key_added(whole, provider)
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    await whole.providers.remove(provider.id, ADMIN)
    for rows in (providers, storage_domains, authentication_keys):
        assert await whole.store.read(rows.all) == []


async def test_a_key_comes_to_hosts_and_goes(whole, provider):
    key = await key_added(whole, provider)
    assert key.uuid == UUID
    assert whole.hosts.has == {"up": [UUID]}
    with whole.store.engine.connect() as conn:
        assert KEY.reveal() not in str(
            conn.exec_driver_sql("SELECT * FROM authentication_keys").all()
        )
    edited = await whole.keys.edit(provider.id, key.id, ADMIN, value=Secret("new"))
    assert edited.revision == 2
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    assert whole.hosts.has == {"up": []}
    await whole.domains.activate(whole.domain_id, ADMIN)
    assert whole.hosts.has == {"up": [UUID]}
    await whole.keys.remove(provider.id, key.id, ADMIN)
    await whole.done()
    assert whole.hosts.has == {"up": []}


@pytest.mark.parametrize(
    ("new", "kind", "words"),
    [
        (NewKey("", KEY), Incomplete, "has no uuid; give it that of the secret"),
        (NewKey("x", KEY), Invalid, "'x' of the authentication key is none; give it the form"),
        (NewKey(UUID, Secret("")), Incomplete, "has no value; give it the CEPHX key"),
        (NewKey(UUID, KEY, "iscsi"), Invalid, "'iscsi' of the authentication key is unknown"),
    ],
)
async def test_what_cannot_be_a_key_is_refused(whole, provider, new, kind, words):
    with pytest.raises(kind, match=words) as refused:
        await whole.keys.add(provider.id, new, ADMIN)
    assert KEY.reveal() not in str(refused.value)
    await key_added(whole, provider)
    with pytest.raises(Conflict, match=f"the uuid {UUID} is that of another authentication key"):
        await whole.keys.add(provider.id, NewKey(UUID, KEY), ADMIN)


async def test_a_host_that_takes_no_keys_fails_the_domain_for_nobody(whole):
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    whole.hosts.refusing["up"] = OutsideError("libvirt has no room; make some")
    job = await whole.domains.activate(whole.domain_id, ADMIN)
    assert job.status is JobStatus.FINISHED
    assert (await domain(whole)).status is DomainStatus.ACTIVE
    _, steps = await whole.store.read(book.read, job.id)
    assert (steps[1].status, steps[1].reason) == (StepStatus.LEFT, "libvirt has no room; make some")
    told = [event for event in await whole.store.read(events.all) if event.code == 10762]
    assert [event.host_id for event in told] == ["up"]


async def test_a_provider_that_is_away_leaves_the_domain_in_maintenance(whole):
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    whole.world.failing["check"] = Unavailable("no monitor can be reached; start one")
    with pytest.raises(EngineError, match="no monitor"):
        await whole.domains.activate(whole.domain_id, ADMIN)
    await whole.done()
    found = await domain(whole)
    assert (found.status, found.reason) == (
        DomainStatus.MAINTENANCE,
        "no monitor can be reached; start one",
    )


async def test_a_domain_that_is_detached_and_attached(whole, provider, center):
    with pytest.raises(Conflict, match="is active; deactivate it before it is detached"):
        await whole.domains.detach(center.id, whole.domain_id, ADMIN)
    await whole.domains.deactivate(whole.domain_id, ADMIN)
    with pytest.raises(NotFound):
        await whole.domains.detach("other", whole.domain_id, ADMIN)
    await whole.domains.detach(center.id, whole.domain_id, ADMIN)
    assert (await domain(whole)).status is DomainStatus.UNATTACHED
    with pytest.raises(Conflict, match="is in no data center; attach it to one first"):
        await whole.domains.unregistered(whole.domain_id)
    await key_added(whole, provider)
    assert whole.hosts.has == {"up": []}
    attached = await whole.domains.attach(center.id, whole.domain_id, ADMIN)
    assert attached.status is DomainStatus.ACTIVE
    # Hosts that are up have its keys before it is active.
    assert whole.hosts.has == {"up": [UUID]}
    with pytest.raises(Conflict, match="is attached to a data center already"):
        await whole.domains.attach(center.id, whole.domain_id, ADMIN)


async def test_volumes_that_are_nobodys_become_disks(whole):
    for number, status in enumerate(VolumeStatus):
        volume = Volume(f"v{number}", f"name {number}", 1 << 30, status, str(status))
        whole.world.volumes[volume.id] = volume
    own = await whole.disks.add(NewDisk("one", whole.domain_id, 1 << 30), ADMIN)
    await whole.done()
    (free,) = await whole.domains.unregistered(whole.domain_id)
    assert free.id == "v0"
    disk = await whole.domains.register(whole.domain_id, "v0", ADMIN)
    assert (disk.id, disk.alias, disk.size_bytes) == ("v0", "name 0", 1 << 30)
    assert await whole.domains.unregistered(whole.domain_id) == []
    for taken in (own.id, "v0"):
        with pytest.raises(Conflict, match=f"volume {taken} is disk .* already; use that one"):
            await whole.domains.register(whole.domain_id, taken, ADMIN)
    with pytest.raises(Conflict, match="volume v2 is in-use; see that it is available"):
        await whole.domains.register(whole.domain_id, "v2", ADMIN)
    with pytest.raises(NotFound, match="no volume of the storage domain has the id v9"):
        await whole.domains.register(whole.domain_id, "v9", ADMIN)


async def test_data_centers_and_clusters_that_are_in_use_stay(whole, center):
    (cluster,) = await whole.store.read(clusters.all)
    with pytest.raises(Conflict, match="cluster Default still has hosts; remove them first"):
        await whole.clusters.remove(cluster.id, ADMIN)
    with pytest.raises(Conflict, match="data center Default still has storage domains; detach"):
        await whole.centers.remove(center.id, ADMIN)
    assert len(await whole.store.read(jobs.all)) == 0
