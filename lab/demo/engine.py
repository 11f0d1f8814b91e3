# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo of the engine: a host joins it, and oVirt's own client has disks made on Ceph.

`make demo-engine`: the lab's pool without a Cinder; `make demo-engine CINDER=1`: its real Cinder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import ovirtsdk4 as sdk
from ovirtsdk4 import types

from lab.base import LabError, wait_until
from lab.cinder.server import PROJECT
from lab.cinder.volumes import Volumes
from lab.demo.stage import Show
from lab.engine_service import ADMIN, EngineService, pool_url
from lab.host.joining import before_joining, join
from lab.running import Lab
from lab.steps import Steps

OPENING = "A Ceph cluster and a hypervisor, both real, on this machine alone:"
GIB = 1 << 30
WITHIN_S = 120


class Play:
    """An administrator's part, step by step. system: the client's, once it has logged in."""

    def __init__(self, lab: Lab, steps: Steps) -> None:
        self._lab = lab
        self._step = steps.step
        self._engine = EngineService(lab, changes={"storage": {"look_s": 1}})
        self._daemon = before_joining(lab.hosts["host1"], lab.pki)
        self._key_uuid = str(uuid.uuid4())

    def run(self) -> list[str]:
        """All steps; returns what they proved."""
        print("\nAn engine on its embedded database:")
        with self._step("cinder-engine init: keys, authorities, database, administrator"):
            self._engine.init()
        with self._step("cinder-engine serve: /health says ok"):
            self._engine.start()
        try:
            print("\nDriven by ovirtsdk4, as it comes from PyPI:")
            with self._logged_in() as system:
                proven = self._administer(system)
            with self._step("vdsm-cinderd and cinder-engine stop"):
                self._daemon.stop()
                self._engine.stop()
        finally:
            if self._daemon.runs:
                self._daemon.kill()
            if self._engine.runs:
                self._engine.kill()
        return proven

    @contextlib.contextmanager
    def _logged_in(self) -> Iterator[Any]:
        engine = self._engine
        try:
            with self._step(f"{ADMIN} logs in"):
                connection = sdk.Connection(
                    url=engine.url,
                    username=ADMIN,
                    password=engine.password,
                    ca_file=str(engine.ca),
                )
                connection.test(raise_exception=True)
            yield connection.system_service()
            connection.close()
        except sdk.Error as e:
            raise LabError(f"the client was told: {e}") from e

    def _administer(self, system: Any) -> list[str]:
        host = self._add_host(system)
        with self._step(f"a provider: {self._url}"):
            provider = self._add_provider(system)
        with self._step("its authentication key is brought to host1, whose libvirt has it"):
            self._add_key(provider)
        with self._step("its storage domain is active") as step:
            domain = self._domain(system)
            step.progress(f"{(domain.available or 0) / GIB:.0f} GiB free")
        disk = self._make_disk(system, domain)
        with self._step("a volume that somebody else made is listed, and registered as a disk"):
            registered = self._register(system, domain)
        with self._step("the engine is killed, and goes on as if nothing was"):
            self._engine.kill()
            self._engine.start()
            _expect(_is(self._disk(system, disk).get(), types.DiskStatus.OK), "the disk is lost")
        with self._step("both disks are removed, and their images"):
            for disk_id in (disk, registered):
                self._disk(system, disk_id).remove()
            left = self._lab.ceph.images()
            _expect(not left, f"the pool still has {left}")
        with self._step("domain and provider go, and host1 loses the key"):
            self._remove_provider(system, provider, domain)
        with self._step("host1 goes into maintenance, and is removed"):
            host.deactivate()
            self._until(host, types.HostStatus.MAINTENANCE)
            host.remove()
        where = "Cinder" if self._has_cinder else "a Ceph pool without a Cinder"
        return [
            "A host had its certificates from the engine by one line, and was up.",
            f"oVirt's own client, unmodified, had disks made, extended and removed in {where};",
            "  each was compared with its image by rbd itself.",
            "The key of the storage was in libvirt of the host as long as its domain was active.",
            "The engine was killed and started again, and lost nothing.",
            "The pool has no image left.",
        ]

    # Hosts

    def _add_host(self, system: Any) -> Any:
        hosts, address = system.hosts_service(), self._daemon.host.address
        with self._step("host1 is added, and the answer has the line to run on it"):
            new = types.Host(name="host1", address=address, cluster=types.Cluster(name="Default"))
            added = hosts.add(new)
        host = hosts.host_service(added.id)
        with self._step("that line on host1: vdsm-cinder join https://… join1.…"):
            join(self._daemon, added.comment)
        with self._step("vdsm-cinderd starts there, and the engine calls it: host1 is up"):
            self._daemon.start()
            self._until(host, types.HostStatus.UP)
        return host

    def _until(self, host: Any, status: Any) -> None:
        wait_until(lambda: _is(host.get(), status), f"host1 to be {status.value}", WITHIN_S)

    def _secrets(self) -> str:
        return self._daemon.host.virsh("secret-list")

    # Providers

    @property
    def _has_cinder(self) -> bool:
        return self._lab.cinder.runs

    @property
    def _url(self) -> str:
        if self._has_cinder:
            return self._lab.cinder.url.removesuffix(f"/v3/{PROJECT}")
        return pool_url(self._lab.ceph)

    def _add_provider(self, system: Any) -> Any:
        ceph = self._lab.ceph
        login = {"requires_authentication": True, "username": ceph.user, "password": ceph.key}
        if self._has_cinder:
            login = {"requires_authentication": False, "tenant_name": PROJECT}
        new = types.OpenStackVolumeProvider(
            name="ceph", url=self._url, data_center=types.DataCenter(name="Default"), **login
        )
        providers = system.openstack_volume_providers_service()
        provider = providers.provider_service(providers.add(new).id)
        provider.test_connectivity()
        _expect(bool(provider.volume_types_service().list()), "it has no volume types")
        return provider

    def _add_key(self, provider: Any) -> None:
        usage = types.OpenstackVolumeAuthenticationKeyUsageType.CEPH
        key = types.OpenstackVolumeAuthenticationKey(
            uuid=self._key_uuid, value=self._lab.ceph.key, usage_type=usage
        )
        provider.authentication_keys_service().add(key)
        wait_until(lambda: self._key_uuid in self._secrets(), "host1 to have the key", WITHIN_S)

    def _domain(self, system: Any) -> Any:
        domains = system.storage_domains_service()

        def active() -> Any:
            (domain,) = domains.list(search="name=ceph")
            is_known = _is(domain, types.StorageDomainStatus.ACTIVE) and domain.used is not None
            return domain if is_known else None

        return wait_until(active, "the storage domain to be active", WITHIN_S)

    def _remove_provider(self, system: Any, provider: Any, domain: Any) -> None:
        (center,) = system.data_centers_service().list(search="name=Default")
        attached = (
            system.data_centers_service()
            .data_center_service(center.id)
            .storage_domains_service()
            .storage_domain_service(domain.id)
        )
        attached.deactivate()
        wait_until(lambda: self._key_uuid not in self._secrets(), "host1 to lose it", WITHIN_S)
        attached.remove()
        provider.remove()
        _expect(not system.storage_domains_service().list(), "the storage domain is still there")

    # Disks

    def _make_disk(self, system: Any, domain: Any) -> str:
        with self._step("a disk of 1 GiB: its image is in the pool"):
            new = types.Disk(
                alias="data",
                provisioned_size=GIB,
                format=types.DiskFormat.RAW,
                storage_domains=[types.StorageDomain(id=domain.id)],
            )
            disk_id: str = system.disks_service().add(new).id
            self._until_ok(system, disk_id, GIB)
        with self._step("it is extended to 2 GiB, and so is the image"):
            self._disk(system, disk_id).update(types.Disk(provisioned_size=2 * GIB))
            self._until_ok(system, disk_id, 2 * GIB)
        return disk_id

    def _disk(self, system: Any, disk_id: str) -> Any:
        return system.disks_service().disk_service(disk_id)

    def _until_ok(self, system: Any, disk_id: str, size_bytes: int) -> None:
        service = self._disk(system, disk_id)
        wait_until(lambda: _is(service.get(), types.DiskStatus.OK), "the disk to be ok", WITHIN_S)
        sizes = (service.get().provisioned_size, self._lab.ceph.image_size(f"volume-{disk_id}"))
        _expect(sizes == (size_bytes, size_bytes), f"disk and image have {sizes} bytes")

    def _register(self, system: Any, domain: Any) -> str:
        if self._has_cinder:
            volume = Volumes(self._lab.cinder.url, "host1").create(1)
        else:
            volume = str(uuid.uuid4())
            self._lab.ceph.create_image(f"volume-{volume}", 1024)
        service = system.storage_domains_service().storage_domain_service(domain.id)
        disks = service.disks_service()
        found = [disk.id for disk in disks.list(unregistered=True)]
        _expect(found == [volume], f"the volumes that are no disks are {found}")
        disks.add(types.Disk(id=volume), unregistered=True)
        self._until_ok(system, volume, GIB)
        return volume


def _is(shown: Any, status: Any) -> bool:
    """Whether something has that status; LabError if it cannot have it any more."""
    if shown.status in (types.DiskStatus.ILLEGAL, types.StorageDomainStatus.INACTIVE):
        raise LabError(f"{shown.name} is {shown.status.value}")
    return bool(shown.status is status)


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise LabError(otherwise)


if __name__ == "__main__":
    show = Show(
        "lab.demo.engine",
        OPENING,
        lambda lab, steps: Play(lab, steps).run(),
        with_cinder=bool(os.environ.get("CINDER")),
    )
    sys.exit(show.main())
