# SPDX-License-Identifier: GPL-2.0-or-later
"""A host joins the real program by its line; it has the keys of active domains, killed or not."""

from __future__ import annotations

import shutil
import uuid

import pytest
from ovirtsdk4 import types

from cinderengine.jobs.runner import Moment
from lab.base import LabError
from lab.host.hypervisor import certify
from lab.host.joining import LIBVIRTD_CONF, before_joining, join
from tests.engine.functional.dying import Engine, die
from tests.engine.functional.served import connected, default, domain_of, storage_of, until

MOMENTS = (Moment.INTENDED, Moment.DID, Moment.MARKED)
# What is asked, and the number of its step that brings keys to the host.
CASES = [
    pytest.param((what, number, moment), id=f"{what}-{moment.name}")
    for what, number in {"add": 0, "remove": 0, "deactivate": 0, "activate": 1}.items()
    for moment in MOMENTS
]
CEPH = types.OpenstackVolumeAuthenticationKeyUsageType.CEPH


@pytest.fixture(scope="module")
def daemon(lab):
    """That of host2, which has not joined yet, and is as the lab made it afterwards."""
    host = lab.hosts["host2"]
    conf = host.path(LIBVIRTD_CONF)
    before = conf.read_text()
    daemon = before_joining(host, lab.pki)
    yield daemon
    if daemon.runs:
        daemon.stop()
    conf.write_text(before)
    certify(host, lab.pki)
    shutil.rmtree(lab.directory / "joined" / "host2")


@pytest.fixture(scope="module")
def engine(lab):
    engine = Engine(lab, "joined")
    engine.init()
    engine.serve()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def host_id(engine, daemon, lab):
    """host2, which has joined and is up; with a provider in its data center."""
    with connected(engine) as connection:
        system = connection.system_service()
        hosts, cluster = system.hosts_service(), types.Cluster(name="Default")
        new = types.Host(name="host2", address=daemon.host.address, cluster=cluster)
        added = hosts.add(new)
        said = join(daemon, added.comment)
        assert f"host2 of the engine at {engine.root}" in said
        with pytest.raises(LabError, match="token"):
            join(daemon, added.comment[:-1] + "A")
        daemon.start()
        until_is(hosts.host_service(added.id), types.HostStatus.UP)
        provider = storage_of(lab, "pool").provider(data_center=types.DataCenter(name="Default"))
        system.openstack_volume_providers_service().add(provider)
    return added.id


@pytest.fixture
def system(engine, host_id):
    with connected(engine) as connection:
        yield connection.system_service()


def until_is(service, status):
    until(lambda: service.get().status is status, f"it to be {status.value}")


def has(daemon, key_uuids):
    """Return when libvirt of the host has these keys, and no others."""

    def those():
        listed = daemon.host.virsh("secret-list").split()
        return {word for word in listed if word.count("-") == 4} == set(key_uuids)

    until(those, f"the host to have the keys {key_uuids}")


def keys_of(system):
    providers = system.openstack_volume_providers_service()
    (provider,) = providers.list()
    return providers.provider_service(provider.id).authentication_keys_service()


def attached(system):
    center = system.data_centers_service().data_center_service(default(system).id)
    return center.storage_domains_service().storage_domain_service(domain_of(system, "pool").id)


def add_key(system, lab):
    key_uuid = str(uuid.uuid4())
    new = types.OpenstackVolumeAuthenticationKey(uuid=key_uuid, value=lab.ceph.key, usage_type=CEPH)
    return keys_of(system).add(new)


def test_what_a_host_tells_of_itself(system, host_id, daemon):
    service = system.hosts_service().host_service(host_id)
    host = service.get()
    assert (host.address, host.status) == (daemon.host.address, types.HostStatus.UP)
    assert host.cpu.topology.sockets
    assert host.memory > 0
    assert host.os.type
    statistics = {one.name: one for one in service.statistics_service().list()}
    assert statistics["memory.total"].values[0].datum == host.memory
    (found,) = system.hosts_service().list(search="name=host2 and status=up")
    assert found.id == host_id


def test_a_host_has_the_keys_of_active_domains(system, host_id, daemon, lab):
    first = add_key(system, lab)
    has(daemon, [first.uuid])
    attached(system).deactivate()
    has(daemon, [])
    second = add_key(system, lab)
    attached(system).activate()
    has(daemon, [first.uuid, second.uuid])
    host = system.hosts_service().host_service(host_id)
    host.deactivate()
    until_is(host, types.HostStatus.MAINTENANCE)
    has(daemon, [])
    keys_of(system).key_service(first.id).remove()
    host.activate()
    until_is(host, types.HostStatus.UP)
    has(daemon, [second.uuid])
    keys_of(system).key_service(second.id).remove()
    has(daemon, [])
    assert lab.ceph.key not in daemon.log.read_text()


@pytest.mark.parametrize("case", CASES)
def test_a_kill_while_keys_are_brought(engine, host_id, daemon, lab, case):
    what, number, moment = case
    with connected(engine) as connection:
        system = connection.system_service()
        kept = [] if what == "add" else [add_key(system, lab)]
        has(daemon, [key.uuid for key in kept])
        if what == "activate":
            attached(system).deactivate()
            has(daemon, [])
        does = {
            "add": lambda: add_key(system, lab),
            "remove": lambda: keys_of(system).key_service(kept[0].id).remove(),
            "deactivate": lambda: attached(system).deactivate(),
            "activate": lambda: attached(system).activate(),
        }
        die(engine, does[what], moment, number)
    engine.serve()
    with connected(engine) as connection:
        system = connection.system_service()
        known = keys_of(system).list()
        assert len(known) == (0 if what == "remove" else 1)
        has(daemon, [] if what == "deactivate" else [key.uuid for key in known])
        until_is(system.hosts_service().host_service(host_id), types.HostStatus.UP)
        jobs = system.jobs_service()
        until(lambda: types.JobStatus.STARTED not in {j.status for j in jobs.list()}, "jobs to end")
        if what == "deactivate":
            attached(system).activate()
        assert attached(system).get().status is types.StorageDomainStatus.ACTIVE
        for key in known:
            keys_of(system).key_service(key.id).remove()
        has(daemon, [])
