# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Cinder with its RBD driver on the lab's Ceph, for those who ask for it.

`python -m lab up --cinder` starts it; it ends with the lab. Its API needs no Keystone (noauth), its
database is a file (SQLite), and its three services are one process (lab/cinder/process.py).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.base import CACHE_DIR, ENGINE_ADDRESS, LabError, wait_until
from lab.ceph.setup import POOL, USER
from lab.namespace import CLEAN_ENVIRONMENT, Namespace
from lab.steps import Step

PORT = 8776
PROJECT = "0" * 32
BACKEND = "lab@ceph#ceph"
# Unpacked by lab.fetching, and never installed.
PACKAGES = CACHE_DIR / "cinder"
MODULES = "usr/lib/python3/dist-packages"
SERVICES = Path(__file__).with_name("process.py")
PYTHON = "/usr/bin/python3"
START_TIMEOUT_S = 120

CONFIGURATION = """\
[DEFAULT]
host = lab
state_path = {state}
log_file = {log}
auth_strategy = noauth
transport_url = fake://
osapi_volume_listen = {address}
osapi_volume_listen_port = {port}
osapi_volume_workers = 1
api_paste_config = {state}/api-paste.ini
enabled_backends = ceph
default_volume_type = __DEFAULT__

[database]
connection = sqlite:///{state}/database

[oslo_concurrency]
lock_path = {state}/locks

[coordination]
backend_url = file://{state}

[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = ceph
rbd_pool = {pool}
rbd_user = {user}
rbd_ceph_conf = {ceph_conf}
"""
# Without Keystone whoever comes is who the request says.
API = """\
[composite:osapi_volume]
use = call:cinder.api:root_app_factory
/v3 = v3

[composite:v3]
use = call:cinder.api.middleware.auth:pipeline_factory
noauth = request_id faultwrap noauth apiv3

[filter:request_id]
paste.filter_factory = oslo_middleware.request_id:RequestId.factory

[filter:faultwrap]
paste.filter_factory = cinder.api.middleware.fault:FaultWrapper.factory

[filter:noauth]
paste.filter_factory = cinder.api.middleware.auth:NoAuthMiddleware.factory

[app:apiv3]
paste.app_factory = cinder.api.v3.router:APIRouter.factory
"""


@dataclass(frozen=True)
class Cinder:
    """The lab's Cinder, running or not."""

    namespace: Namespace
    lab_dir: Path

    @property
    def url(self) -> str:
        """Where its API is, with the project, as clients on the lab's network reach it."""
        return f"http://{ENGINE_ADDRESS}:{PORT}/v3/{PROJECT}"

    @property
    def log(self) -> Path:
        """What its services log."""
        return self.lab_dir / "log" / "cinder.log"

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self._started.exists() and self._lives()

    def start(self, step: Step) -> None:
        """Start it unless it runs; returns when volumes can be made."""
        if self.runs:
            return
        if not PACKAGES.exists():
            raise LabError("Cinder's packages have not been fetched: run 'python -m lab fetch'")
        self._state.mkdir(exist_ok=True)
        (self._state / "api-paste.ini").write_text(API)
        self._configuration.write_text(
            CONFIGURATION.format(
                state=self._state,
                log=self.log,
                address=ENGINE_ADDRESS,
                port=PORT,
                pool=POOL,
                user=USER,
                ceph_conf=self.lab_dir / "ceph" / "ceph.conf",
            )
        )
        step.progress("starting")
        self._started.unlink(missing_ok=True)
        self._launch()
        wait_until(self._is_up, "Cinder to serve", START_TIMEOUT_S)

    @property
    def _state(self) -> Path:
        return self.lab_dir / "cinder"

    @property
    def _configuration(self) -> Path:
        return self._state / "cinder.conf"

    @property
    def _started(self) -> Path:
        return self._state / "started"

    @property
    def _pid_file(self) -> Path:
        return self._state / "pid"

    @property
    def _output(self) -> Path:
        return self.log.with_suffix(".out")

    def _launch(self) -> None:
        # -P: what is next to the script has names of Cinder's own.
        program = (PYTHON, "-P", SERVICES, self._configuration, self._started)
        command = shlex.join(str(word) for word in program)
        output = shlex.quote(str(self._output))
        # In the background of a shell that ends at once: the lab's PID 1 becomes the parent.
        background = f"setsid {command} >{output} 2>&1 </dev/null & echo $!"
        environment = {**CLEAN_ENVIRONMENT, "PYTHONPATH": str(PACKAGES / MODULES)}
        self._pid_file.write_text(self.namespace.run(["sh", "-c", background], env=environment))

    def _lives(self) -> bool:
        return self._pid_file.exists() and self.namespace.has(int(self._pid_file.read_text()))

    def _is_up(self) -> bool:
        if not self._lives():
            said = self._output.read_text().strip().splitlines() or ["it said nothing"]
            raise LabError(f"Cinder ended while it started: {said[-1]}; see {self.log}")
        return self._started.exists()
