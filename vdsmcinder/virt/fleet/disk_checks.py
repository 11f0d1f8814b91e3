# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of disks on Ceph that an operator asks for, with the keys that this daemon was given.

Host.checkDisk and VM.checkDisks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import libvirt

from vdsmcinder.ceph.diagnosis import SECRET, Patient, diagnose
from vdsmcinder.ceph.findings import Finding
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.errors import ResourceUnavailable, UnsupportedDrive
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk.ceph_images import CephImage
from vdsmcinder.virt.disk.disk_params import DriveParams
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.vm.vm import VM


@dataclass(frozen=True)
class DiskCheck:
    """A disk on Ceph and what was found of it, step by step."""

    image: CephImage
    findings: list[Finding]


class DiskChecks:
    """Asks libvirt for the secrets of disks, and Ceph for the rest."""

    def __init__(self, workers: Workers, secrets: Secrets) -> None:
        self._workers = workers
        self._secrets = secrets

    async def of_description(self, described: DriveParams) -> DiskCheck:
        """Check a disk for a VM that is yet to start.

        Raises UnsupportedDrive (36) for one that is not on Ceph, and what Drive raises.
        """
        drive = Drive.of(described, ())
        found = ceph_images.of_disks(drive.getXML()).images
        if not found:
            raise UnsupportedDrive(
                f"disk {drive.name} ({drive.source.path}) is not on Ceph; give one that is",
                disk=drive.name,
            )
        return await self._check(found[0], open_here=False)

    async def of_vm(self, vm: VM) -> list[DiskCheck]:
        """Check those of the VM's disks that are on Ceph, all at once."""
        images = vm.domain.ceph.images
        return await asyncio.gather(*(self._check(i, open_here=vm.running) for i in images))

    async def _check(self, image: CephImage, *, open_here: bool) -> DiskCheck:
        patient = ceph_access.patient(image, open_here=open_here)
        secret = await self._secret(image, patient)
        key = ceph_access.key(image, self._secrets)
        return DiskCheck(image, [secret, *await diagnose(patient, self._workers, key)])

    async def _secret(self, image: CephImage, patient: Patient) -> Finding:
        name = image.secret
        if name is None:
            return SECRET.ok("the disk names none")
        try:
            missing = await self._secrets.missing([name])
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            return SECRET.unknown(f"libvirt does not tell whether it has {name}: {e}")
        if missing:
            return SECRET.wrong(f"{name} is not registered on this host", patient.register)
        if self._secrets.value(name) is None:
            return SECRET.warning(
                f"libvirt has {name}, but this daemon was not given it since it started",
                patient.register,
            )
        return SECRET.ok(f"{name} is registered")
