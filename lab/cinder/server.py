# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Cinder with its RBD driver on the lab's Ceph, for those who ask for it.

`python -m lab up --cinder` starts it; it ends with the lab. Its API needs no Keystone below /v3
(noauth), and the lab's Keystone below /keystone/v3; its database is a file (SQLite), and its three
services are one process (lab/cinder/process.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.base import CACHE_DIR, ENGINE_ADDRESS
from lab.ceph.setup import POOL, USER
from lab.cinder.keystone import SERVICE_PASSWORD, SERVICE_PROJECT, SERVICE_USER
from lab.cinder.keystone import URL as KEYSTONE_URL
from lab.cinder.program import Program
from lab.namespace import Namespace
from lab.steps import Step

PORT = 8776
PROJECT = "0" * 32
BACKEND = "lab@ceph#ceph"
# Unpacked by lab.fetching, and never installed.
PACKAGES = CACHE_DIR / "cinder"
SERVICES = Path(__file__).with_name("process.py")

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
resource_query_filters_file = {state}/resource_filters.json
enabled_backends = ceph
default_volume_type = __DEFAULT__

[database]
connection = sqlite:///{state}/database

[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
auth_type = password
username = {service_user}
password = {service_password}
project_name = {service_project}
user_domain_name = Default
project_domain_name = Default
# A token that Keystone takes back is one no more from then on.
token_cache_time = -1

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
/ = apiversions
/v3 = v3
/keystone = apiversions
/keystone/v3 = v3keystone

[composite:v3]
use = call:cinder.api.middleware.auth:pipeline_factory
noauth = request_id faultwrap noauth apiv3

[pipeline:v3keystone]
pipeline = request_id faultwrap authtoken keystonecontext apiv3

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory

[filter:keystonecontext]
paste.filter_factory = cinder.api.middleware.auth:CinderKeystoneContext.factory

[filter:request_id]
paste.filter_factory = oslo_middleware.request_id:RequestId.factory

[filter:faultwrap]
paste.filter_factory = cinder.api.middleware.fault:FaultWrapper.factory

[filter:noauth]
paste.filter_factory = cinder.api.middleware.auth:NoAuthMiddleware.factory

[pipeline:apiversions]
pipeline = request_id faultwrap osvolumeversionapp

[app:osvolumeversionapp]
paste.app_factory = cinder.api.versions:Versions.factory

[app:apiv3]
paste.app_factory = cinder.api.v3.router:APIRouter.factory
"""


# By what volumes can be asked for, as Cinder has it unless an operator changes it.
FILTERS = """\
{"volume": ["name", "status", "metadata", "bootable", "migration_status", "availability_zone",
            "group_id"]}
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
    def keystone_url(self) -> str:
        """Where its API is for those who have a token of the lab's Keystone."""
        return f"http://{ENGINE_ADDRESS}:{PORT}/keystone"

    @property
    def log(self) -> Path:
        """What its services log."""
        return self.lab_dir / "log" / "cinder.log"

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self._program.runs

    def start(self, step: Step) -> None:
        """Start it unless it runs; returns when volumes can be made."""
        if self.runs:
            return
        configuration = CONFIGURATION.format(
            state=self._program.state,
            log=self.log,
            address=ENGINE_ADDRESS,
            port=PORT,
            pool=POOL,
            user=USER,
            ceph_conf=self.lab_dir / "ceph" / "ceph.conf",
            keystone=KEYSTONE_URL,
            service_user=SERVICE_USER,
            service_password=SERVICE_PASSWORD,
            service_project=SERVICE_PROJECT,
        )
        files = {
            "api-paste.ini": API,
            "resource_filters.json": FILTERS,
            "cinder.conf": configuration,
        }
        self._program.start(step, files, "cinder.conf")

    @property
    def _program(self) -> Program:
        state = self.lab_dir / "cinder"
        return Program("Cinder", self.namespace, SERVICES, PACKAGES, state, self.log)
