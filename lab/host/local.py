# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinderd as a process of its own on 127.0.0.1, on libvirt's test driver: needs no lab.

For what is about load and memory, where QEMU would only be noise.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.base import REPOSITORY, LabError, wait_until
from lab.host import pages
from lab.pki import Pki, make_pki

HOST = "127.0.0.1"
START_TIMEOUT_S = 30
_LISTENING = re.compile(rf"listening on {re.escape(HOST)}:(\d+)")


class LocalDaemon:
    """A daemon whose files are below `directory`; as a context manager it runs and knows its VMs.

    `changes` are options by section, for instance {"listen": {"tls": True}}: unless they say so it
    speaks plain TCP. `wrapper` is a command that runs the daemon's own, such as prlimit(1);
    `program` is the module to run, and what comes before the configuration's path.
    """

    def __init__(
        self,
        directory: Path,
        changes: Mapping[str, Any] | None = None,
        wrapper: Sequence[str] = (),
        program: Sequence[str] = ("vdsmcinder.daemon", "--config"),
    ) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.unix_socket = directory / "socket"
        self.port = 0
        self.pki = Pki(directory / "pki")
        self._argv = [*wrapper, sys.executable, "-m", *program]
        self._write_config(changes or {})

    def __enter__(self) -> LocalDaemon:
        notify = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, self.log.open("ab") as log:
            ear.bind(str(notify))
            ear.settimeout(0.1)
            self._process = subprocess.Popen(
                [*self._argv, self._config],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": str(notify)},
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            self._wait_ready(ear, time.monotonic() + START_TIMEOUT_S)
        notify.unlink()
        try:
            self._look_around()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _look_around(self) -> None:
        found = _LISTENING.search(self.log.read_text())
        if found is None:
            raise LabError(f"{self.log} does not say which port the daemon listens on")
        self.port = int(found.group(1))
        knows = "the daemon to know its VMs"
        wait_until(lambda: pages.health(self.unix_socket)["ready"], knows, START_TIMEOUT_S)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise LabError(f"vdsm-cinderd did not end within 20 s; see {self.log}") from None

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    @property
    def address(self) -> tuple[str, int]:
        """Where clients reach it."""
        return HOST, self.port

    def resident_bytes(self) -> int:
        """Its resident memory (proc(5), status, VmRSS)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def cpu_s(self) -> float:
        """The processor time that it has used so far, in seconds (proc(5), schedstat)."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(t.read_text().split()[0]) for t in tasks) / 1e9

    def open_files_limit(self) -> tuple[int, int]:
        """The soft and the hard limit of its open files (proc(5), limits)."""
        limits = Path(f"/proc/{self._process.pid}/limits").read_text()
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        soft, hard = line.split()[3:5]
        return int(soft), int(hard)

    def _wait_ready(self, ear: socket.socket, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.runs:
                said = " | ".join(self.log.read_text().splitlines()[-3:]) or "it said nothing"
                raise LabError(f"vdsm-cinderd ended while it started: {said}")
            try:
                if b"READY=1" in ear.recv(4096):
                    return
            except socket.timeout:
                continue
        self._process.kill()
        self._process.wait()
        raise LabError(f"vdsm-cinderd was not ready after {START_TIMEOUT_S} s; see {self.log}")

    def _write_config(self, changes: Mapping[str, Any]) -> None:
        identity = self.pki.identity("host")
        sections: dict[str, dict[str, Any]] = {
            "listen": {
                "address": HOST,
                "port": 0,
                "tls": False,
                "certificate": str(identity.cert),
                "key": str(identity.key),
                "ca": str(self.pki.ca),
                "unix_socket": str(self.unix_socket),
            },
            "libvirt": {"uri": "test:///default"},
            "log": {"level": "INFO", "target": "stderr"},
        }
        for section, options in changes.items():
            sections.setdefault(section, {}).update(options)
        if sections["listen"]["tls"]:
            make_pki(self.pki.directory, {"host": HOST})
        self._config = self.directory / "vdsm-cinder.yaml"
        self._config.write_text(json.dumps(sections, indent=2))
