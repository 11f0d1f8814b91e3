# SPDX-License-Identifier: GPL-2.0-or-later
"""The program cinder-engine from the source tree: made, served, killed, and served again.

For those who are in the engine's place of a lab, as its tests and the demo are.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.base import ENGINE_ADDRESS, REPOSITORY, LabError, wait_until
from lab.ceph.cluster import Ceph
from lab.running import Lab

ADMIN = "admin@internal"
# Long enough for a machine that has little time for it: what ends or hangs is told of all the same.
START_TIMEOUT_S = 180
END_TIMEOUT_S = 30
PROGRAM = (sys.executable, "-m", "cinderengine.main")


class EngineService:
    """An engine in a directory of its own; `name` tells several of one lab apart.

    `changes` are options by section that differ from those of the lab. Use it as a context manager,
    which makes and serves it, or call init(), start() and stop().
    """

    def __init__(
        self, lab: Lab, name: str = "engine", changes: Mapping[str, Any] | None = None
    ) -> None:
        self.directory = lab.directory / "engine" / name
        self.directory.mkdir(parents=True, exist_ok=True)
        # Where the logs of a lab that failed are kept.
        self.log = lab.directory / "log" / f"{name}.log"
        self.password = "the lab's own passw0rd"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._configure(changes or {})

    def __enter__(self) -> EngineService:
        self.init()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.runs:
            self.stop()

    @property
    def root(self) -> str:
        """Its URL, without a path."""
        return f"https://{ENGINE_ADDRESS}:{self.port}"

    @property
    def url(self) -> str:
        """Its API, as clients of oVirt are told it."""
        return f"{self.root}/ovirt-engine/api"

    @property
    def state(self) -> Path:
        """The directory of all that it keeps."""
        return self.directory / "state"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that its clients are to trust."""
        return self.state / "pki" / "clients-ca.pem"

    @property
    def config(self) -> Path:
        """Its configuration file (JSON, which is YAML)."""
        return self.directory / "cinder-engine.yaml"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Its process; start() made it."""
        if self._process is None:
            raise LabError("the engine was not started")
        return self._process

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def init(self) -> None:
        """Make keys, authorities, database, and the administrator with `password`."""
        self.command("init", stdin=f"{self.password}\n")

    def command(self, *arguments: str, stdin: str = "") -> str:
        """What one of its commands prints; LabError with what it says if it fails."""
        command = [*PROGRAM, "--config", str(self.config), *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, input=stdin, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise LabError(
                f"'cinder-engine {' '.join(arguments)}' failed ({done.returncode}): "
                f"{done.stderr.strip()}"
            )
        return done.stdout

    def start(
        self,
        program: Sequence[str] = PROGRAM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Serve it; returns when /health says ok. program: in place of cinder-engine."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, "--config", str(self.config), "serve"],
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_well, "cinder-engine to serve", START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in good order, as systemctl stop does."""
        self.process.send_signal(signal.SIGTERM)
        code = self._end()
        if code:
            raise LabError(f"cinder-engine ended with {code} when told to end; see {self.log}")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self._end()

    def wait_killed(self) -> None:
        """Return when it was killed by SIGKILL; LabError if it ends otherwise, or goes on."""
        code = self._end()
        if code != -signal.SIGKILL:
            raise LabError(f"cinder-engine was to be killed and ended with {code}; see {self.log}")

    def context(self) -> ssl.SSLContext:
        """A client's TLS context, which trusts the engine's authority and no other."""
        return ssl.create_default_context(cafile=self.ca)

    def page(self, path: str) -> tuple[int, bytes]:
        """The status and the body of what it answers to GET."""
        connection = http.client.HTTPSConnection(
            ENGINE_ADDRESS, self.port, timeout=10, context=self.context()
        )
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _is_well(self) -> bool:
        if not self.runs:
            raise LabError(f"cinder-engine ended while it started: {self._last_lines()}")
        try:
            status, _ = self.page("/health")
        except ConnectionRefusedError:
            return False
        return status == 200

    def _end(self) -> int:
        try:
            return self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise LabError(
                f"cinder-engine did not end within {END_TIMEOUT_S} s; see {self.log}"
            ) from None

    def _last_lines(self) -> str:
        return " | ".join(self.log.read_text().splitlines()[-3:]) or "it said nothing"

    def _configure(self, changes: Mapping[str, Any]) -> None:
        sections: dict[str, dict[str, Any]] = {
            "listen": {"address": ENGINE_ADDRESS, "port": self.port, "names": [ENGINE_ADDRESS]},
            "directories": {"state": str(self.state)},
            "log": {"level": "DEBUG", "target": "stderr"},
        }
        for section, options in changes.items():
            sections.setdefault(section, {}).update(options)
        self.config.write_text(json.dumps(sections, indent=2))


def pool_url(ceph: Ceph) -> str:
    """The lab's pool, as a provider without a Cinder is told it."""
    monitors = ",".join(monitor.address for monitor in ceph.monitors)
    return f"rbd://{monitors}/{ceph.pool}"


def _free_port() -> int:
    """One that nobody has; hosts are told it before the engine has it."""
    with socket.create_server((ENGINE_ADDRESS, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
