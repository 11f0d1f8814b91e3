# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinderd on one of the lab's hosts: its configuration, its process, its log.

It runs inside the host's namespaces as it would under systemd there, and tells that it is ready in
systemd's way.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.base import REPOSITORY, LabError, wait_until
from lab.host import pages
from lab.host.hypervisor import Host
from lab.namespace import CLEAN_ENVIRONMENT, NamespacedProcess
from lab.pki import DAEMON, Pki

PORT = 54321
PROGRAM = REPOSITORY / ".venv/bin/vdsm-cinderd"
CLIENT = REPOSITORY / ".venv/bin/vdsm-cinder"
START_TIMEOUT_S = 30


class HostDaemon:
    """The daemon of one host; `name` tells several of one host apart.

    `changes` are options by section that differ from those of the lab, for instance
    {"vms": {"hotunplug_timeout_s": 2}}; `environment` is added to that which it starts with;
    `program` is its command, before the configuration's path. Use it as a context manager, or end
    it with stop().
    """

    def __init__(
        self,
        host: Host,
        pki: Pki,
        changes: Mapping[str, Any] | None = None,
        name: str = "daemon",
        environment: Mapping[str, str] | None = None,
        *,
        program: Sequence[object] = (PROGRAM, "--config"),
    ) -> None:
        self.host = host
        self.pki = pki
        self._environment = environment or {}
        self._program = program
        self.directory = host.lab_dir / name / host.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "log"
        self.unix_socket = self.directory / "socket"
        self.port = PORT
        self.ready_after_s = 0.0
        self._process: NamespacedProcess | None = None
        self._write_config(changes or {})

    def __enter__(self) -> HostDaemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.runs:
            self.stop()

    @property
    def config(self) -> Path:
        """Its configuration file (JSON, which is YAML)."""
        return self.directory / "vdsm-cinder.yaml"

    @property
    def process(self) -> NamespacedProcess:
        """Its process; start() made it."""
        if self._process is None:
            raise LabError("the daemon was not started")
        return self._process

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; returns when it has said READY and knows the host's VMs."""
        self.launch()
        wait_until(lambda: self.health()["status"] == "ready", "the daemon to know its VMs", 30)

    def launch(self) -> None:
        """Start it; returns when it has said READY, and no client has asked for anything yet."""
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, self.log.open("ab") as log:
            ear.bind(str(notify))
            ear.settimeout(0.1)
            began = time.monotonic()
            self._process = self.host.popen(
                [*self._program, self.config],
                env={**CLEAN_ENVIRONMENT, **self._environment, "NOTIFY_SOCKET": str(notify)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            self._wait_ready(ear, began + START_TIMEOUT_S)
            self.ready_after_s = time.monotonic() - began

    def stop(self) -> None:
        """End it in good order, as systemctl stop does; VMs run on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would; VMs run on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it in good order and start it again."""
        self.stop()
        self.start()

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Write its configuration anew; it is read at the next start() or reload()."""
        self._write_config(changes)

    def reload(self) -> None:
        """Have it read certificates, roles and log level again, as systemctl reload does."""
        if self._process is None:
            raise LabError("the daemon was not started")
        self._process.send_signal(signal.SIGHUP)

    def page(self, path: str) -> bytes:
        """What it answers to GET, over the unix socket."""
        return pages.page(self.unix_socket, path)

    def command(self, *args: object) -> list[str]:
        """The command line of the operator's command, against this daemon, on the engine's side."""
        return [str(w) for w in (CLIENT, "--socket", self.unix_socket, *args)]

    def health(self) -> dict[str, Any]:
        """What it says of itself on GET /health."""
        return pages.health(self.unix_socket)

    def _wait_ready(self, ear: socket.socket, deadline: float) -> None:
        while time.monotonic() < deadline:
            if not self.runs:
                raise LabError(f"vdsm-cinderd ended while it started: {self._last_lines()}")
            try:
                if b"READY=1" in ear.recv(4096):
                    return
            except socket.timeout:
                continue
        self.kill()
        raise LabError(f"vdsm-cinderd was not ready after {START_TIMEOUT_S} s; see {self.log}")

    def _last_lines(self) -> str:
        return " | ".join(self.log.read_text().splitlines()[-3:]) or "it said nothing"

    def _end(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise LabError(f"vdsm-cinderd did not end within 20 s; see {self.log}") from None

    def _write_config(self, changes: Mapping[str, Any]) -> None:
        identity = self.pki.identity(self.host.name)
        among_hosts = self.pki.identity(f"{self.host.name}-{DAEMON}")
        sections: dict[str, dict[str, Any]] = {
            "listen": {
                "address": self.host.address,
                "port": self.port,
                "certificate": str(identity.cert),
                "key": str(identity.key),
                "ca": str(self.pki.ca),
                "hosts_ca": str(self.pki.hosts_ca),
                "unix_socket": str(self.unix_socket),
            },
            "migration": {"certificate": str(among_hosts.cert), "key": str(among_hosts.key)},
            "libvirt": {"uri": self.host.uri},
            "vms": {"allow_emulation": True, "sample_interval_s": 1},
            "log": {"level": "DEBUG", "target": "stderr"},
        }
        for section, options in changes.items():
            sections.setdefault(section, {}).update(options)
        self.port = sections["listen"]["port"]
        self.config.write_text(json.dumps(sections, indent=2))
