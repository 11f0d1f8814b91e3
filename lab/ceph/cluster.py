# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's Ceph cluster: starts and ends its daemons, makes and reads the images of its pool.

What librbd reads of an image is read from outside of any guest.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base import LabError, wait_until
from lab.ceph.setup import MONITORS, POOL, USER, Monitor
from lab.namespace import Namespace

MIB = 1024 * 1024


@dataclass(frozen=True)
class Ceph:
    """Three monitors (a, b, c), a manager, and an OSD whose disk is a file in memory."""

    namespace: Namespace
    directory: Path
    monitors: tuple[Monitor, ...] = MONITORS
    pool: str = POOL
    user: str = USER

    # Who it is and how to log in

    @property
    def conf(self) -> Path:
        """The administrator's ceph.conf, for commands on the engine's side: `ceph --conf …`."""
        return self.directory / "ceph.conf"

    @property
    def key(self) -> str:
        """The key of `user` as `ceph auth get-key` prints it: base64 of what libvirt wants."""
        return self.key_of(f"client.{self.user}")

    def key_of(self, entity: str) -> str:
        """The key of any entity of lab.ceph.setup.CAPABILITIES, such as "client.admin"."""
        keyring = (self.directory / f"{entity}.keyring").read_text()
        return keyring.partition("key = ")[2].strip()

    # Commands

    def ceph(self, *args: object, timeout_s: float = 60) -> str:
        """Run `ceph …` as the administrator; its stdout."""
        return self.namespace.run(["ceph", "--conf", self.conf, *args], timeout_s)

    def rbd(self, *args: object, timeout_s: float = 60) -> str:
        """Run `rbd …` on the lab's pool as the administrator; its stdout."""
        return self.namespace.run(
            ["rbd", "--conf", self.conf, "--pool", self.pool, *args], timeout_s
        )

    # Daemons

    def start_mon(self, name: str) -> None:
        """Start monitor `name`; returns before it is in quorum (`wait_quorum`)."""
        self._start("ceph-mon", f"mon.{name}")

    def kill_mon(self, name: str) -> None:
        """End monitor `name` as a crash would."""
        self._end(f"mon.{name}", signal.SIGKILL)

    def freeze_mon(self, name: str) -> None:
        """Stop monitor `name` where it stands: it keeps its connections and answers nothing."""
        self.namespace.freeze(self._pid(f"mon.{name}"))

    def thaw_mon(self, name: str) -> None:
        """Let a frozen monitor go on."""
        self.namespace.kill(self._pid(f"mon.{name}"), signal.SIGCONT)

    def start_mgr(self) -> None:
        """Start the manager; returns before it is active."""
        self._start("ceph-mgr", "mgr.x")

    def start_osd(self) -> None:
        """Start the OSD; returns before it is up (`wait_osd`)."""
        self._start("ceph-osd", "osd.0")

    def stop_osd(self) -> None:
        """Stop the OSD in good order."""
        self._end("osd.0", signal.SIGTERM)

    def kill_osd(self) -> None:
        """End the OSD as a crash would; guests' I/O hangs until it is back, with its data."""
        self._end("osd.0", signal.SIGKILL)

    def freeze_osd(self) -> None:
        """Stop the OSD where it stands: guests' I/O hangs until `thaw_osd`.

        For less than 15 s: its leases to read run out then, and alone it does not get new ones.
        """
        self.namespace.freeze(self._pid("osd.0"))

    def thaw_osd(self) -> None:
        """Let a frozen OSD go on."""
        self.namespace.kill(self._pid("osd.0"), signal.SIGCONT)

    def running_mons(self) -> list[str]:
        """The names of the monitors whose process runs."""
        return [monitor.name for monitor in self.monitors if self._runs(f"mon.{monitor.name}")]

    def quorum(self) -> list[str]:
        """The names of the monitors that are in quorum; LabError if there is none within 15 s."""
        status = self._json("--connect-timeout", 15, "quorum_status")
        return list(status["quorum_names"])

    def wait_quorum(self, size: int, timeout_s: float = 90) -> None:
        """Return when exactly `size` monitors are in quorum."""
        wait_until(lambda: self._is_quorum(size), f"a quorum of {size} monitors", timeout_s)

    def _is_quorum(self, size: int) -> bool:
        try:
            return len(self.quorum()) == size
        except LabError:  # there is none yet
            return False

    def wait_osd(self, timeout_s: float = 60) -> None:
        """Return when the OSD is up."""
        wait_until(
            lambda: self._json("osd", "stat")["num_up_osds"] == 1, "the OSD to be up", timeout_s
        )

    def wait_healthy(self, timeout_s: float = 90) -> None:
        """Return when the cluster is healthy; LabError names the failed checks if it never is."""
        try:
            wait_until(lambda: self.health() == "HEALTH_OK", "Ceph to be healthy", timeout_s)
        except LabError as error:
            raise LabError(f"{error}: it says {self.health()}") from None

    def health(self) -> str:
        """ "HEALTH_OK", or the status and the checks behind it."""
        health = self._json("health")
        return " ".join([health["status"], *health["checks"]])

    # Images

    def create_image(self, name: str, size_mib: int, source: Path | None = None) -> None:
        """Create an image, empty or with the bytes of the raw file `source` at its beginning."""
        if source is None:
            self.rbd("create", "--size", f"{size_mib}M", name)
            return
        self.rbd("import", "--no-progress", "--dest", name, source)
        self.resize_image(name, size_mib)

    def resize_image(self, name: str, size_mib: int) -> None:
        """Make an image larger; rbd refuses to make it smaller."""
        if self.image_size(name) != size_mib * MIB:
            self.rbd("resize", "--no-progress", "--size", f"{size_mib}M", name)

    def remove_image(self, name: str) -> None:
        """Remove an image that nobody has open."""
        self.rbd("rm", "--no-progress", name)

    def images(self) -> list[str]:
        """The names of all images of the pool."""
        return self.rbd("ls").split()

    def image_size(self, name: str) -> int:
        """The size of an image in bytes."""
        return int(json.loads(self.rbd("info", "--format", "json", name))["size"])

    def watchers(self, name: str) -> list[str]:
        """The addresses of the clients that have an image open; empty once a guest has let go."""
        status = json.loads(self.rbd("status", "--format", "json", name))
        return [watcher["address"] for watcher in status["watchers"]]

    def read_image(self, name: str, offset_mib: int, count_mib: int) -> bytes:
        """Read from an image, past every cache of a guest."""
        export = [
            "rbd",
            "--conf",
            self.conf,
            "--pool",
            self.pool,
            "export",
            "--no-progress",
            name,
            "-",
        ]
        with self.namespace.popen(
            export, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            skipped = sum(len(process.stdout.read(MIB)) for _ in range(offset_mib))
            data = bytes(process.stdout.read(count_mib * MIB))
            process.kill()
        if skipped + len(data) != (offset_mib + count_mib) * MIB:
            raise LabError(f"image {name} has no {count_mib} MiB at {offset_mib} MiB")
        return data

    def checksum(self, name: str, offset_mib: int, count_mib: int) -> str:
        """The SHA-256 of a part of an image, in the form in which the guest prints it."""
        return hashlib.sha256(self.read_image(name, offset_mib, count_mib)).hexdigest()

    # Bringing it up, in this order

    def make_mons(self) -> None:
        """Create the data of all monitors and start them."""
        for monitor in self.monitors:
            keys = (
                "--monmap",
                self.directory / "monmap",
                "--keyring",
                self.directory / "first.keyring",
            )
            self.namespace.run(
                ["ceph-mon", "--conf", self.conf, "--mkfs", "--id", monitor.name, *keys]
            )
        for monitor in self.monitors:
            self.start_mon(monitor.name)

    def make_osd(self) -> None:
        """Create the OSD's data and start it."""
        osd_uuid = "00000000-0000-4000-8000-000000000000"
        self.ceph("osd", "new", osd_uuid, 0)
        mkfs = ["ceph-osd", "--conf", self.conf, "--id", 0, "--mkfs", "--osd-uuid", osd_uuid]
        self.namespace.run(["mkdir", "-p", self.directory / "data/osd.0"])
        self.namespace.run(mkfs)
        self.start_osd()

    def make_pool(self) -> None:
        """Create the pool for Cinder's volumes; returns when it can be written to."""
        self.ceph("osd", "pool", "create", self.pool)
        self.ceph("osd", "pool", "application", "enable", self.pool, "rbd")
        self.rbd("pool", "init", self.pool)

    def _json(self, *args: object) -> Any:
        return json.loads(self.ceph("--format", "json", *args))

    def _start(self, program: str, entity: str) -> None:
        if self._runs(entity):
            raise LabError(f"{entity} runs already: end it before starting it")
        # The parent returns once the daemon says that it has started, or with what went wrong.
        self.namespace.run([program, "--conf", self.conf, "--id", entity.partition(".")[2]])

    def _pid_file(self, entity: str) -> Path:
        return self.directory / "run" / f"{entity}.pid"

    def _pid(self, entity: str) -> int:
        if not self._runs(entity):
            raise LabError(f"{entity} does not run")
        return int(self._pid_file(entity).read_text())

    def _runs(self, entity: str) -> bool:
        file = self._pid_file(entity)
        return file.exists() and self.namespace.has(int(file.read_text() or 0))

    def _end(self, entity: str, sig: signal.Signals) -> None:
        self.namespace.end(self._pid(entity), sig)
        self._pid_file(entity).unlink(missing_ok=True)
