# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's checks of disks on Ceph: through the daemon, which has the keys, or without it.

A key that the operator gives, from a file or stdin, goes to a worker of our own (ceph/worker.py) as
the daemon's would.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph import diagnosis
from vdsmcinder.ceph.findings import Check, Finding, State
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.client import secrets, sources, system, vms
from vdsmcinder.client.doctor.host import Host
from vdsmcinder.client.doctor.libvirt import domain_of
from vdsmcinder.client.exit_codes import CommandFailed, UsageError
from vdsmcinder.client.session import Unreachable
from vdsmcinder.errors import RemoteError, VdsmCinderError
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk.ceph_images import CephImage
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.drive_json import described
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.storage import ceph_access

DISK = Check("disk")
# Ceph may take ceph.timeout_s for each of several looks, of which the daemon tells when it is done.
ANSWER_S, DEADLINE_S = 35.0, 40.0


@dataclass(frozen=True)
class Wanted:
    """What disks to look at: those of a VM, or one that is described. key: the operator's."""

    vm: str | None
    description: Mapping[str, Any] | None
    key: Secret | None


def wanted(args: argparse.Namespace) -> Wanted | None:
    """What the command's words ask for; None for nothing. Reads the files that they name.

    Raises UsageError, InputRefused.
    """
    if args.vm and args.disk:
        raise UsageError("give a VM or --disk, not both")
    if args.disk == args.keyring == "-":
        raise UsageError("only one of --disk and --keyring can be stdin")
    if not args.vm and not args.disk:
        if args.keyring:
            raise UsageError("--keyring is for a disk; name a VM, or give --disk")
        return None
    description = None
    if args.disk:
        text = sources.read_text(args.disk)
        description = described(sources.parse_json(text, sources.named(args.disk)))
    key = None
    if args.keyring:
        key = Secret(base64.b64decode(secrets.ceph_key(secrets.read_key(args.keyring))))
    return Wanted(args.vm, description, key)


async def disks(host: Host, asked: Wanted) -> list[Finding]:
    """Each step of each disk, from the monitors to who has the image open."""
    if asked.key is None:
        try:
            return await system.in_thread(lambda: list(_by_daemon(host, asked)))
        except Unreachable:
            pass
        except (CommandFailed, RemoteError) as e:
            message, _, remedy = str(e).partition("; ")
            return [DISK.wrong(message, remedy)]
    return await _by_ourselves(host, asked)


def _by_daemon(host: Host, asked: Wanted) -> Iterator[Finding]:
    session = host.session(ANSWER_S)
    if asked.description is not None:
        checks = [session.call("Host.checkDisk", {"drive": asked.description})]
    else:
        vm_id = vms.find(session, asked.vm or "")
        checks = session.call("VM.checkDisks", {"vmID": vm_id})
    for check in checks:
        for step in check["steps"]:
            name = _name(check["disk"], step["step"])
            yield Finding(name, State(step["state"]), step["message"], step.get("remedy", ""))


async def _by_ourselves(host: Host, asked: Wanted) -> list[Finding]:
    try:
        images, running = await _images(host, asked)
    except VdsmCinderError as e:
        message, _, remedy = e.message.partition("; ")
        return [DISK.wrong(message, remedy)]
    if not images:
        return [DISK.unknown("no disk on Ceph is known of it", "vdsm-cinder vms")]
    options = host.settings.ceph
    async with Tasks("Ceph") as tasks:
        workers = Workers(options.timeout_s, options.worker_idle_s, tasks)
        try:
            found = await asyncio.gather(
                *(
                    diagnosis.diagnose(
                        ceph_access.patient(image, open_here=running), workers, asked.key
                    )
                    for image in images
                )
            )
        finally:
            await workers.close()
    return [
        Finding(_name(image.disk, step.check), step.state, step.message, _remedy(step))
        for image, steps in zip(images, found)
        for step in steps
    ]


async def _images(host: Host, asked: Wanted) -> tuple[tuple[CephImage, ...], bool]:
    """The images on Ceph, and whether their VM runs. Raises what Drive raises."""
    if asked.description is not None:
        default = host.settings.vms.cinder_secret_uuid or None
        drive = Drive.from_params(asked.description, (), default)
        return ceph_images.of_disks(drive.getXML()).images, False
    known = domain_of(await host.libvirt(), asked.vm or "")
    return (known[0].ceph.images, known[1]) if known else ((), False)


def _remedy(step: Finding) -> str:
    # The key is the operator's to give while there is no daemon to register it with.
    if step.state is State.UNKNOWN and step.remedy:
        return "start the daemon, which has the key, or give it by --keyring FILE"
    return step.remedy


def _name(disk: str, step: str) -> str:
    return f"{disk} {step}"
