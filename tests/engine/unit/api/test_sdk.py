# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's own client for version 4, unmodified, against the API on a port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

GIB = 1 << 30
UUID = "0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2"


@pytest.fixture
def call(engine):
    """Calls a function with a connection of the client's, in a thread."""

    async def calls(act: Callable[[ovirtsdk4.Connection], Any], password: str = "pw") -> Any:
        def connected() -> Any:
            connection = ovirtsdk4.Connection(
                url=f"{engine.url}/ovirt-engine/api",
                username="admin@internal",
                password=password,
            )
            try:
                return act(connection)
            finally:
                connection.close()

        return await asyncio.to_thread(connected)

    return calls


def provider_of(connection: ovirtsdk4.Connection) -> Any:
    """A provider that was just added, in the default data center."""
    service = connection.system_service().openstack_volume_providers_service()
    return service.add(
        types.OpenStackVolumeProvider(
            name="cinder",
            url="http://c:8776",
            requires_authentication=True,
            username="u",
            password="p",
            authentication_url="http://k:5000/v3",
            tenant_name="admin",
            data_center=types.DataCenter(name="Default"),
        )
    )


def disk_of(connection: ovirtsdk4.Connection) -> Any:
    """A disk that was just added."""
    return (
        connection.system_service()
        .disks_service()
        .add(
            types.Disk(
                alias="d1",
                format=types.DiskFormat.RAW,
                provisioned_size=GIB,
                storage_type=types.DiskStorageType.CINDER,
                openstack_volume_type=types.OpenStackVolumeType(name="my_ceph"),
                storage_domains=[types.StorageDomain(name="cinder")],
            )
        )
    )


async def test_it_logs_in_looks_around_and_out(call, engine) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        assert connection.test(raise_exception=True)
        api = connection.system_service().get()
        assert (api.product_info.version.major, api.product_info.version.minor) == (4, 5)
        assert api.special_objects.blank_template.id == "00000000-0000-0000-0000-000000000000"
        assert api.summary.storage_domains.total == 0
        template = connection.follow_link(api.special_objects.blank_template)
        assert template.name == "Blank"

    await call(act)
    assert engine.access.open_tokens == {}


async def test_a_wrong_password_is_its_own_error(call) -> None:
    with pytest.raises(ovirtsdk4.AuthError, match="access_denied"):
        await call(lambda connection: connection.system_service().get(), password="wrong")


async def test_it_logs_in_again_when_its_token_has_ended(call, engine) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        connection.system_service().get()
        engine.access.open_tokens.clear()
        connection.system_service().get()

    await call(act)
    assert engine.access.logins == 2


async def test_a_provider_with_types_and_keys(call) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        added = provider_of(connection)
        providers = connection.system_service().openstack_volume_providers_service()
        assert [one.id for one in providers.list(search="name=cinder", max=5)] == [added.id]
        provider = providers.provider_service(added.id)
        shown = provider.get(follow="datacenter,volume_types")
        assert shown.data_center.name == "Default"
        assert [kind.name for kind in shown.volume_types] == ["my_ceph"]
        provider.test_connectivity()
        kinds = provider.volume_types_service().list()
        assert kinds[0].properties[0].value == "ceph"
        assert provider.volume_types_service().type_service(kinds[0].id).get().name == "my_ceph"
        assert connection.follow_link(added.data_center).name == "Default"

        keys = provider.authentication_keys_service()
        key = keys.add(
            types.OpenstackVolumeAuthenticationKey(
                uuid=UUID,
                value="YQo=",
                description="d",
                usage_type=types.OpenstackVolumeAuthenticationKeyUsageType.CEPH,
            )
        )
        assert key.value is None
        one = keys.key_service(key.id)
        assert one.update(types.OpenstackVolumeAuthenticationKey(value="YgI=")).uuid == UUID
        assert one.get().creation_date is not None
        one.remove()
        assert keys.list() == []
        provider.update(types.OpenStackVolumeProvider(description="new"))
        assert provider.get().description == "new"

    await call(act)


async def test_a_disk_from_its_adding_to_its_removal(call, engine) -> None:
    def act(connection: ovirtsdk4.Connection) -> str:
        provider_of(connection)
        added = disk_of(connection)
        assert added.status in {types.DiskStatus.LOCKED, types.DiskStatus.OK}
        assert added.storage_type is types.DiskStorageType.CINDER
        disk = connection.system_service().disks_service().disk_service(added.id)
        assert connection.follow_link(added.storage_domains[0]).name == "cinder"
        assert disk.get(follow="storage_domains").storage_domains[0].name == "cinder"
        return str(added.id)

    disk_id = await call(act)
    await engine.idle()

    def more(connection: ovirtsdk4.Connection) -> None:
        disks = connection.system_service().disks_service()
        disk = disks.disk_service(disk_id)
        assert disk.get().status is types.DiskStatus.OK
        disk.update(types.Disk(provisioned_size=2 * GIB))
        assert [one.id for one in disks.list(search="alias=d1")] == [disk_id]

    await call(more)
    await engine.idle()

    def last(connection: ovirtsdk4.Connection) -> None:
        disk = connection.system_service().disks_service().disk_service(disk_id)
        assert disk.get().provisioned_size == 2 * GIB
        disk.remove()
        with pytest.raises(ovirtsdk4.NotFoundError) as e:
            disk.get()
        assert f"Disk {disk_id} does not exist" in str(e.value)

    await call(last)


@pytest.mark.parametrize("async_", [True, False])
async def test_a_removal_is_none_of_its_errors(call, engine, async_) -> None:
    disk = await call(lambda connection: (provider_of(connection), disk_of(connection))[1])
    await engine.idle()

    def act(connection: ovirtsdk4.Connection) -> None:
        disks = connection.system_service().disks_service()
        disks.disk_service(disk.id).remove(async_=async_)

    await call(act)
    await engine.idle()
    assert engine.volumes.kept == {}


async def test_volumes_are_registered(call, engine) -> None:
    ids = [engine.volumes.put(name).id for name in ("one", "two")]

    def act(connection: ovirtsdk4.Connection) -> None:
        center = provider_of(connection).data_center
        system = connection.system_service()
        domain = system.storage_domains_service().list(search="name=cinder")[0]
        disks = system.storage_domains_service().storage_domain_service(domain.id).disks_service()
        assert {disk.id for disk in disks.list(unregistered=True)} == set(ids)
        disks.add(types.Disk(id=ids[0]), unregistered=True)
        centers = system.data_centers_service().data_center_service(center.id)
        attached = centers.storage_domains_service().storage_domain_service(domain.id)
        attached.disks_service().disk_service(ids[1]).register()
        assert {disk.id for disk in disks.list()} == set(ids)

    await call(act)


async def test_a_domain_goes_out_of_its_data_center_and_back(call) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        center = provider_of(connection).data_center
        system = connection.system_service()
        domains = (
            system.data_centers_service().data_center_service(center.id).storage_domains_service()
        )
        domain = domains.list()[0]
        assert domain.storage.type is types.StorageType.CINDER
        assert domain.type is types.StorageDomainType.VOLUME
        one = domains.storage_domain_service(domain.id)
        assert one.get().status is types.StorageDomainStatus.ACTIVE
        one.deactivate(async_=True, force=False)
        assert one.get().status is types.StorageDomainStatus.MAINTENANCE
        one.remove(async_=True)
        alone = system.storage_domains_service().storage_domain_service(domain.id)
        assert alone.get().status is types.StorageDomainStatus.UNATTACHED
        domains.add(types.StorageDomain(id=domain.id))
        assert one.get().status is types.StorageDomainStatus.ACTIVE

    await call(act)


async def test_hosts_centers_and_clusters(call) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        system = connection.system_service()
        centers = system.data_centers_service()
        center = centers.add(types.DataCenter(name="east", local=False))
        assert center.status is types.DataCenterStatus.UNINITIALIZED
        clusters = system.clusters_service()
        cluster = clusters.add(
            types.Cluster(
                name="c",
                data_center=types.DataCenter(id=center.id),
                cpu=types.Cpu(architecture=types.Architecture.X86_64, type="x"),
            )
        )
        assert cluster.cpu.architecture is types.Architecture.X86_64
        hosts = system.hosts_service()
        host = hosts.add(types.Host(name="h", address="10.0.0.1", cluster=types.Cluster(name="c")))
        service = hosts.host_service(host.id)
        service.activate()
        shown = service.get()
        assert shown.status is types.HostStatus.UP
        assert shown.cpu.topology.sockets == 2
        assert shown.cpu.topology.cores == 4
        told = {one.name: one.values[0].datum for one in service.statistics_service().list()}
        assert told["memory.free"] == 1024.0
        service.deactivate()
        service.remove()
        assert hosts.list() == []
        clusters.cluster_service(cluster.id).remove()
        centers.data_center_service(center.id).remove()

    await call(act)


async def test_jobs_and_events(call, engine) -> None:
    await call(lambda connection: (provider_of(connection), disk_of(connection)))
    await engine.idle()

    def act(connection: ovirtsdk4.Connection) -> None:
        system = connection.system_service()
        job = next(job for job in system.jobs_service().list() if "d1" in job.description)
        assert job.status is types.JobStatus.FINISHED
        steps = system.jobs_service().job_service(job.id).steps_service().list()
        assert steps[0].status is types.StepStatus.FINISHED
        newest = system.events_service().list(max=1)[0]
        assert newest.severity is types.LogSeverity.NORMAL
        assert connection.follow_link(newest.user).principal == "admin"
        assert system.events_service().list(from_=int(newest.id)) == []

    await call(act)


async def test_what_is_refused_is_its_own_error_with_our_sentence(call) -> None:
    def act(connection: ovirtsdk4.Connection) -> None:
        disks = connection.system_service().disks_service()
        with pytest.raises(ovirtsdk4.Error) as e:
            disks.add(types.Disk(alias="x"))
        assert e.value.code == 400
        assert e.value.fault.reason == "Incomplete parameters"
        assert "provisioned_size" in e.value.fault.detail

    await call(act)
