# SPDX-License-Identifier: GPL-2.0-or-later
"""The real program is killed at every moment of every step, and served again.

Each time the images of the pool are exactly the API's disks, all jobs have ended, and nothing is
locked. What a flow's steps are is asked of the engine itself, by running each once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from ovirtsdk4 import types

from cinderengine.flows.disks import Create
from cinderengine.jobs.runner import Moment
from tests.engine.functional.dying import Engine, die, tell_to_fail
from tests.engine.functional.served import (
    GIB,
    add_disk,
    connected,
    default,
    domain_of,
    new_disk,
    reckon,
    storage_of,
)

FORWARD = (Moment.INTENDED, Moment.DID, Moment.MARKED)
BACK = (Moment.BACK, Moment.UNDID, Moment.UNDONE)


@pytest.fixture(scope="module")
def storage(lab):
    return storage_of(lab, "pool")


@pytest.fixture(scope="module")
def engine(lab, storage):
    """An engine with an active storage domain."""
    engine = Engine(lab, "killed")
    engine.init()
    engine.serve()
    with connected(engine) as connection:
        center = types.DataCenter(name="Default")
        providers = connection.system_service().openstack_volume_providers_service()
        providers.add(storage.provider(data_center=center))
    yield engine
    # What ends in good order leaves nothing to take up.
    engine.stop()
    engine.start()
    with connected(engine) as connection:
        system = connection.system_service()
        reckon(system, storage)
        for disk in system.disks_service().list():
            system.disks_service().disk_service(disk.id).remove()
        reckon(system, storage)
    engine.stop()
    assert storage.images() == {}


@dataclass
class Scene:
    """What a flow is done to: a storage domain, and a disk if it needs one."""

    system: Any
    domain: Any
    disk: Any = None

    @property
    def disks(self):
        return self.system.disks_service()

    @property
    def attached(self):
        center = self.system.data_centers_service().data_center_service(default(self.system).id)
        return center.storage_domains_service().storage_domain_service(self.domain.id)


def prepare(system, verb):
    scene = Scene(system, domain_of(system, "pool"))
    if verb in ("extend", "remove"):
        scene.disk = add_disk(system, verb, scene.domain)
    if verb in ("activate", "attach"):
        # A domain with disks is not detached.
        for disk in scene.disks.list() if verb == "attach" else ():
            scene.disks.disk_service(disk.id).remove()
        scene.attached.deactivate()
        if verb == "attach":
            scene.attached.remove()
    return scene


def add(scene):
    scene.disks.add(new_disk("add", scene.domain))


def extend(scene):
    scene.disks.disk_service(scene.disk.id).update(types.Disk(provisioned_size=2 * GIB))


def remove(scene):
    scene.disks.disk_service(scene.disk.id).remove()


def activate(scene):
    scene.attached.activate()


def attach(scene):
    center = scene.system.data_centers_service().data_center_service(default(scene.system).id)
    center.storage_domains_service().add(types.StorageDomain(id=scene.domain.id))


# Each flow, and how many steps it has here, where no host is up.
FLOWS = {add: 2, extend: 2, remove: 2, activate: 1, attach: 1}
CASES = [
    pytest.param(flow, moment, number, id=f"{flow.__name__}-{number}-{moment.name}")
    for flow, steps in FLOWS.items()
    for number in range(steps)
    for moment in FORWARD
]


@pytest.mark.parametrize(("flow", "moment", "number"), CASES)
def test_a_kill_loses_nothing(engine, storage, flow, moment, number):
    with connected(engine) as connection:
        scene = prepare(connection.system_service(), flow.__name__)
        known = {job.id for job in scene.system.jobs_service().list()}
        before = storage.images()
        die(engine, lambda: flow(scene), moment, number)
    engine.serve()
    with connected(engine) as connection:
        system = connection.system_service()
        reckon(system, storage)
        (job,) = [job for job in system.jobs_service().list() if job.id not in known]
        assert job.status is types.JobStatus.FINISHED, job.description
        steps = system.jobs_service().job_service(job.id).steps_service().list()
        assert len(steps) == FLOWS[flow]
        assert domain_of(system, "pool").status is types.StorageDomainStatus.ACTIVE
    after = storage.images()
    if flow is add:
        ((_, size_bytes),) = after.items() - before.items()
        assert size_bytes == GIB
    elif flow is extend:
        assert after == {**before, scene.disk.id: 2 * GIB}
    elif flow is remove:
        assert after == {name: size for name, size in before.items() if name != scene.disk.id}
    else:
        assert after == before


@pytest.mark.parametrize("moment", BACK, ids=lambda moment: moment.name)
def test_a_kill_while_what_failed_is_undone(engine, storage, moment):
    before = storage.images()
    with connected(engine) as connection:
        scene = prepare(connection.system_service(), "add")
        known = {job.id for job in scene.system.jobs_service().list()}
        tell_to_fail(engine.directory, Create)
        die(engine, lambda: add(scene), moment, 0)
    engine.serve()
    with connected(engine) as connection:
        system = connection.system_service()
        reckon(system, storage)
        (job,) = [job for job in system.jobs_service().list() if job.id not in known]
        assert (job.status, "the test says so" in job.description) == (types.JobStatus.FAILED, True)
    assert storage.images() == before
