# SPDX-License-Identifier: GPL-2.0-or-later
"""The running lab as an object: `Lab.attach()` finds it, from any process of this machine.

The lab is known by a record in its directory.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base import LabError, lab_dir
from lab.ceph.cluster import Ceph
from lab.cinder.keystone import Keystone
from lab.cinder.server import Cinder
from lab.guest.image import Guest
from lab.host.hypervisor import KINDS as HOST_KINDS
from lab.host.hypervisor import Host
from lab.namespace import Namespace
from lab.pki import Pki

KINDS = ("mount", "net", "pid", "ipc")


@dataclass(frozen=True)
class Record:
    """What lab.json says: the pids of the first process, the PID 1 below it, and each host's."""

    pid: int
    init: int
    hosts: dict[str, int]

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        """The record of the lab in `directory`, if it has got so far."""
        file = directory / "lab.json"
        return cls(**json.loads(file.read_text())) if file.exists() else None

    def write(self, directory: Path) -> None:
        """Put the record in its place at once."""
        fresh = directory / "lab.json.new"
        fresh.write_text(json.dumps(dataclasses.asdict(self)))
        fresh.rename(directory / "lab.json")


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    directory: Path
    first_pid: int
    namespace: Namespace
    ceph: Ceph
    hosts: dict[str, Host]
    guest: Guest
    pki: Pki
    cinder: Cinder
    keystone: Keystone

    @classmethod
    def attach(cls, directory: Path | None = None) -> Lab:
        """The lab that runs in a directory, else in the usual one; LabError if none is complete."""
        directory = directory or lab_dir()
        record = Record.read(directory)
        if not record or holder(directory) != record.pid:
            raise LabError("no lab runs: start it with 'python -m lab up'")
        return cls.of_record(directory, record)

    @classmethod
    def of_record(cls, directory: Path, record: Record) -> Lab:
        """The lab that a record tells of; all but the pids goes by convention."""
        namespace = Namespace(record.init, KINDS)
        hosts = {
            name: Host(name, Namespace(pid, HOST_KINDS), directory)
            for name, pid in record.hosts.items()
        }
        kernel = directory / "kernel"
        return cls(
            directory,
            record.pid,
            namespace,
            Ceph(namespace, directory / "ceph"),
            hosts,
            Guest(kernel / "vmlinux", kernel / "initrd", kernel / "boot.img"),
            Pki(directory / "pki"),
            Cinder(namespace, directory),
            Keystone(namespace, directory),
        )

    def engine_command(self, argv: Sequence[str]) -> list[str]:
        """`argv` as run in the engine's place: the lab's network, the machine's files."""
        return ["nsenter", f"--target={self.namespace.pid}", "--net", "--", *argv]


def holder(directory: Path) -> int:
    """The pid of the process that holds the lab's lock (the lab, or who is starting it), or 0."""
    try:
        with (directory / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return 0
    except BlockingIOError:
        return int((directory / "lock").read_text() or 0)
    return 0
