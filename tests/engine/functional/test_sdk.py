# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's own Python client, unmodified, against the real program and real storage."""

from __future__ import annotations

import re
import uuid

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from lab.cinder.volumes import Volumes
from lab.engine_service import EngineService
from tests.engine.functional.served import (
    GIB,
    MIB,
    add_disk,
    connected,
    default,
    domain_of,
    fault,
    is_ok,
    new_disk,
    reckon,
    storage_of,
    until,
)

KEY = "AQDuPz9lAAAAABAA7Vg0bQ1r5oY1+0m6p2b1Gg=="
NOWHERE = "00000000-0000-4000-8000-00000000dead"


@pytest.fixture(scope="module", params=["pool"])
def storage(request, lab):
    return storage_of(lab, request.param)


@pytest.fixture(scope="module")
def engine(lab, storage):
    with EngineService(lab, f"sdk-{storage.kind}") as engine:
        yield engine


@pytest.fixture(scope="module")
def system(engine):
    with connected(engine) as connection:
        yield connection.system_service()


@pytest.fixture(scope="module")
def provider(system, storage):
    """A provider in the default data center; so its domain is active."""
    center = types.DataCenter(name="Default")
    added = system.openstack_volume_providers_service().add(storage.provider(data_center=center))
    yield added
    reckon(system, storage)
    for disk in system.disks_service().list():
        system.disks_service().disk_service(disk.id).remove()
    reckon(system, storage)
    attached_service(system, storage).deactivate()
    system.openstack_volume_providers_service().provider_service(added.id).remove()
    assert system.storage_domains_service().list() == []


@pytest.fixture
def domain(system, provider):
    return domain_of(system, provider.name)


def attached_service(system, storage):
    center = system.data_centers_service().data_center_service(default(system).id)
    domain = domain_of(system, storage.kind)
    return center.storage_domains_service().storage_domain_service(domain.id)


def size_offered(storage, size_bytes):
    """What becomes of a size: a pool's images are whole MiB, Cinder's volumes whole GiB."""
    unit = MIB if storage.kind == "pool" else GIB
    return -(-size_bytes // unit) * unit


# Who it is


def test_the_root(system):
    api = system.get()
    assert (api.product_info.version.major, api.product_info.version.minor) == (4, 5)
    assert api.special_objects.blank_template.id
    assert api.summary.storage_domains is not None


def test_a_wrong_password(engine):
    with connected(engine, password="wrong") as other, pytest.raises(sdk.AuthError) as raised:
        other.system_service().get()
    assert engine.password not in str(raised.value)


def test_a_token_goes_on_elsewhere(engine, system):
    with connected(engine) as first:
        token = first.authenticate()
        with connected(engine, username=None, password=None, token=token) as second:
            assert second.test(raise_exception=True)


def test_a_logout_ends_the_token(engine):
    with connected(engine) as first:
        token = first.authenticate()
    connection = sdk.Connection(url=engine.url, token=token, ca_file=str(engine.ca))
    connection.close(logout=True)
    with (
        connected(engine, username=None, password=None, token=token) as later,
        pytest.raises(sdk.AuthError),
    ):
        later.system_service().get()


# Data centers and clusters


def test_data_centers(system):
    centers = system.data_centers_service()
    added = centers.add(types.DataCenter(name="another", description="one", local=False))
    assert added.status is types.DataCenterStatus.UNINITIALIZED
    service = centers.data_center_service(added.id)
    assert service.get().description == "one"
    assert service.update(types.DataCenter(description="two")).description == "two"
    with fault(409, "another"):
        centers.add(types.DataCenter(name="another", local=False))
    service.remove()
    with pytest.raises(sdk.NotFoundError):
        service.get()
    assert [center.name for center in centers.list()] == ["Default"]


def test_clusters(system):
    clusters, center = system.clusters_service(), default(system)
    (first,) = clusters.list(search="name=Default")
    assert first.data_center.id == center.id
    added = clusters.add(types.Cluster(name="another", data_center=types.DataCenter(id=center.id)))
    service = clusters.cluster_service(added.id)
    assert service.update(types.Cluster(comment="mine")).comment == "mine"
    service.remove()
    assert [cluster.name for cluster in clusters.list()] == ["Default"]


def test_hosts(system):
    hosts = system.hosts_service()
    assert hosts.list() == []
    new = types.Host(name="one", address="192.0.2.1", cluster=types.Cluster(name="Default"))
    with fault(400, "over ssh", "run on the host the line"):
        hosts.add(types.Host(**{**vars_of(new), "root_password": "secret"}))
    added = hosts.add(new)
    assert re.fullmatch(r"vdsm-cinder join https://\S+ join1\.\S+", added.comment), added.comment
    shown = hosts.host_service(added.id).get()
    assert "join1." not in (shown.comment or "")
    hosts.host_service(added.id).remove()
    assert hosts.list() == []


def vars_of(host):
    return {"name": host.name, "address": host.address, "cluster": host.cluster}


# Providers


def test_a_provider(system, provider, storage):
    providers = system.openstack_volume_providers_service()
    (found,) = providers.list(search=f'name="{provider.name}"', follow="data_center")
    assert (found.id, found.data_center.name) == (provider.id, "Default")
    service = providers.provider_service(provider.id)
    shown = service.get()
    assert (shown.url, shown.username) == (storage.fields["url"], storage.fields.get("username"))
    assert shown.password is None
    assert shown.requires_authentication is storage.fields["requires_authentication"]
    service.test_connectivity()
    assert service.update(types.OpenStackVolumeProvider(description="mine")).description == "mine"
    assert service.get().url == storage.fields["url"]


def test_volume_types(system, provider, storage):
    service = system.openstack_volume_providers_service().provider_service(provider.id)
    found = service.volume_types_service().list()
    assert all(kind.id and kind.name for kind in found)
    (kind,) = found if storage.kind == "pool" else found[:1]
    if storage.kind == "pool":
        assert "exclusive-lock" in {p.name: p.value for p in kind.properties}["features"]
    assert service.volume_types_service().type_service(kind.id).get().name == kind.name


def test_providers_that_are_refused(system, storage, provider):
    providers = system.openstack_volume_providers_service()
    before = {found.id for found in providers.list()}

    def add(**changes):
        providers.add(storage.provider(**{"name": "other", **changes}))

    with fault(409, provider.name):
        add(name=provider.name, url="http://192.0.2.1:8776")
    with fault(409, storage.fields["url"]):
        add()
    with fault(400, "url"):
        add(url=None)
    with fault(404, "nowhere"):
        add(url=f"{storage.fields['url']}x", data_center=types.DataCenter(name="nowhere"))
    with pytest.raises(sdk.Error) as raised:
        add(url="http://10.77.0.1:1", requires_authentication=False, username=None, password=None)
    assert "10.77.0.1:1" in raised.value.fault.detail
    assert {found.id for found in providers.list()} == before
    assert len(system.storage_domains_service().list()) == len(before)


def test_a_wrong_key_of_a_pool(system, storage, provider):
    if storage.kind == "cinder":
        pytest.skip("a Cinder without Keystone takes anybody")
    service = system.openstack_volume_providers_service().provider_service(provider.id)
    with pytest.raises(sdk.Error) as raised:
        service.update(types.OpenStackVolumeProvider(password=KEY))
    assert storage.fields["username"] in raised.value.fault.detail
    assert KEY not in raised.value.fault.detail
    service.test_connectivity()


# Authentication keys


def test_authentication_keys(system, provider):
    service = system.openstack_volume_providers_service().provider_service(provider.id)
    keys = service.authentication_keys_service()
    new, usage = (
        types.OpenstackVolumeAuthenticationKey,
        types.OpenstackVolumeAuthenticationKeyUsageType,
    )
    key_uuid = str(uuid.uuid4())
    added = keys.add(new(uuid=key_uuid, value=KEY, usage_type=usage.CEPH, description="mine"))
    assert (added.uuid, added.value, added.usage_type) == (key_uuid, None, usage.CEPH)
    assert added.creation_date is not None
    with fault(409, key_uuid):
        keys.add(new(uuid=key_uuid, value=KEY, usage_type=usage.CEPH))
    with fault(400, "value"):
        keys.add(new(uuid=str(uuid.uuid4()), usage_type=usage.CEPH))
    with fault(400, "uuid"):
        keys.add(new(value=KEY, usage_type=usage.CEPH))
    with fault(400, "not-one"):
        keys.add(new(uuid="not-one", value=KEY, usage_type=usage.CEPH))
    key = keys.key_service(added.id)
    assert key.update(new(value=KEY, description="ours")).description == "ours"
    (listed,) = keys.list()
    assert (listed.uuid, listed.description, listed.value) == (key_uuid, "ours", None)
    key.remove()
    assert keys.list() == []
    with pytest.raises(sdk.NotFoundError):
        key.get()


# Storage domains


def test_a_storage_domain(system, provider, domain, storage):
    assert (domain.name, domain.status) == (provider.name, types.StorageDomainStatus.ACTIVE)
    assert domain.type is types.StorageDomainType.VOLUME
    assert domain.storage.type is types.StorageType.CINDER
    service = system.storage_domains_service().storage_domain_service(domain.id)
    assert service.update(types.StorageDomain(description="mine")).description == "mine"
    attached = attached_service(system, storage)
    assert attached.get().status is types.StorageDomainStatus.ACTIVE
    attached.deactivate()
    assert attached.get().status is types.StorageDomainStatus.MAINTENANCE
    with fault(409, "maintenance"):
        system.disks_service().add(new_disk("refused", domain))
    attached.remove()
    with pytest.raises(sdk.NotFoundError):
        attached.get()
    assert service.get().status is types.StorageDomainStatus.UNATTACHED
    center = system.data_centers_service().data_center_service(default(system).id)
    center.storage_domains_service().add(types.StorageDomain(id=domain.id))
    until(
        lambda: attached.get().status is types.StorageDomainStatus.ACTIVE,
        "the storage domain to be active",
    )
    attached.deactivate()
    attached.activate()
    assert attached.get().status is types.StorageDomainStatus.ACTIVE
    with fault(409, "active"):
        attached.activate()


def test_what_is_used_is_not_removed(system, provider, domain, storage):
    disk = add_disk(system, "in the way", domain)
    attached = attached_service(system, storage)
    providers = system.openstack_volume_providers_service()
    with fault(409, domain.name):
        providers.provider_service(provider.id).remove()
    attached.deactivate()
    try:
        with fault(409, "1 disk"):
            attached.remove()
        with fault(409, "1 disk"):
            providers.provider_service(provider.id).remove()
    finally:
        attached.activate()
    system.disks_service().disk_service(disk.id).remove()


# Disks


@pytest.mark.parametrize("size_bytes", [1, GIB - 1, GIB, 3 * GIB // 2 + 1])
def test_a_disk_of_any_size(system, domain, storage, size_bytes):
    disk = add_disk(system, f"of {size_bytes}", domain, size_bytes)
    assert disk.provisioned_size == size_offered(storage, size_bytes)
    assert storage.images()[disk.id] == disk.provisioned_size
    assert (disk.image_id, disk.format) == (disk.id, types.DiskFormat.RAW)
    assert disk.storage_type is types.DiskStorageType.CINDER
    system.disks_service().disk_service(disk.id).remove()
    assert disk.id not in storage.images()


def test_a_disk_lives(system, domain, provider, storage):
    kinds = system.openstack_volume_providers_service().provider_service(provider.id)
    kind = kinds.volume_types_service().list()[0].name
    disks = system.disks_service()
    added = disks.add(
        new_disk(
            "lives",
            domain,
            description="for a while",
            openstack_volume_type=types.OpenStackVolumeType(name=kind),
        )
    )
    assert added.status in {types.DiskStatus.LOCKED, types.DiskStatus.OK}
    disk = is_ok(disks, added.id)
    assert (disk.alias, disk.description) == ("lives", "for a while")
    assert disk.openstack_volume_type.name == kind
    assert [one.id for one in disk.storage_domains] == [domain.id]
    assert [one.id for one in disks.list(search="alias=lives")] == [disk.id]
    of_domain = system.storage_domains_service().storage_domain_service(domain.id).disks_service()
    assert [one.id for one in of_domain.list()] == [disk.id]
    service = disks.disk_service(disk.id)
    edited = service.update(types.Disk(alias="lives on", description="longer"))
    assert (edited.alias, edited.description) == ("lives on", "longer")
    service.update(types.Disk(provisioned_size=2 * GIB))
    disk = is_ok(disks, disk.id)
    assert disk.provisioned_size == 2 * GIB == storage.images()[disk.id]
    with fault(400, "smaller"):
        service.update(types.Disk(provisioned_size=GIB))
    service.remove()
    with pytest.raises(sdk.NotFoundError):
        service.get()
    assert disk.id not in storage.images()
    reckon(system, storage)


def test_a_disk_that_names_its_domain(system, domain, storage):
    """As the client's own examples do, and without a word of what kind it is."""
    named = [types.StorageDomain(name=domain.name)]
    disk = add_disk(system, "by name", domain, storage_domains=named)
    assert storage.images()[disk.id] == GIB
    system.disks_service().disk_service(disk.id).remove()


def test_a_disk_is_removed_while_nobody_waits(system, domain, storage):
    disk = add_disk(system, "async", domain)
    service = system.disks_service().disk_service(disk.id)
    service.remove(async_=True)

    def gone():
        try:
            return service.get() is None
        except sdk.NotFoundError:
            return True

    until(gone, "the disk to be gone")
    assert disk.id not in storage.images()
    with pytest.raises(sdk.NotFoundError):
        service.remove()


def test_disks_that_are_refused(system, domain, storage):
    disks = system.disks_service()
    with fault(400, "provisioned_size"):
        disks.add(new_disk("none", domain, None))
    with fault(400, "alias"):
        disks.add(new_disk(None, domain))
    with fault(400, "size"):
        disks.add(new_disk("small", domain, 0))
    with fault(400, "storage_domains"):
        disks.add(new_disk("nowhere", domain, storage_domains=[]))
    with fault(404, NOWHERE):
        disks.add(new_disk("nowhere", types.StorageDomain(id=NOWHERE)))
    with fault(400, "no-such-type"):
        kind = types.OpenStackVolumeType(name="no-such-type")
        disks.add(new_disk("typeless", domain, openstack_volume_type=kind))
    with pytest.raises(sdk.NotFoundError):
        disks.disk_service(NOWHERE).get()
    assert disks.list() == []
    reckon(system, storage)


def test_volumes_that_are_no_disks_yet(system, domain, storage):
    first, second = (made_by_somebody(storage) for _ in range(2))
    of_domain = system.storage_domains_service().storage_domain_service(domain.id).disks_service()
    found = {disk.id: disk for disk in of_domain.list(unregistered=True)}
    assert {first, second} <= set(found)
    assert found[first].provisioned_size == GIB
    assert of_domain.list() == []
    registered = of_domain.add(types.Disk(id=first), unregistered=True)
    assert (registered.id, registered.provisioned_size) == (first, GIB)
    center = system.data_centers_service().data_center_service(default(system).id)
    attached = center.storage_domains_service().storage_domain_service(domain.id)
    attached.disks_service().disk_service(second).register()
    assert {disk.id for disk in of_domain.list()} == {first, second}
    assert {first, second}.isdisjoint(disk.id for disk in of_domain.list(unregistered=True))
    with fault(409, first):
        of_domain.add(types.Disk(id=first), unregistered=True)
    with fault(404, NOWHERE):
        of_domain.add(types.Disk(id=NOWHERE), unregistered=True)
    reckon(system, storage)
    for disk_id in (first, second):
        system.disks_service().disk_service(disk_id).remove()
    assert {first, second}.isdisjoint(storage.images())


def made_by_somebody(storage):
    """The id of a volume of 1 GiB that the engine did not make."""
    if storage.kind == "pool":
        made = str(uuid.uuid4())
        storage.lab.ceph.create_image(f"volume-{made}", 1024)
        return made
    return Volumes(storage.lab.cinder.url, "host1").create(1)


# Jobs and events


def test_what_is_told_of_a_disk(system, domain):
    flow = f"flow-{uuid.uuid4()}"
    events = system.events_service()
    last = max((int(event.id) for event in events.list(max=1)), default=0)
    disks = system.disks_service()
    added = disks.add(new_disk("told", domain), headers={"Correlation-Id": flow})
    is_ok(disks, added.id)
    jobs = system.jobs_service()

    def ended():
        (job,) = jobs.list(search=f"correlation_id={flow}")
        return job if job.status is not types.JobStatus.STARTED else None

    job = until(ended, "the job to end")
    assert (job.status, job.owner is not None) == (types.JobStatus.FINISHED, True)
    assert "told" in job.description
    steps = jobs.job_service(job.id).steps_service().list()
    assert [step.number for step in steps] == list(range(len(steps))) != []
    assert {step.status for step in steps} == {types.StepStatus.FINISHED}
    told = events.list(search=f"correlation_id={flow}")
    assert {event.correlation_id for event in told} == {flow}
    assert any("Disk told was added" in event.description for event in told)
    assert {event.id for event in told} <= {event.id for event in events.list(from_=last)}
    disks.disk_service(added.id).remove()
