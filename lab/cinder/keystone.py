# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Keystone for the lab's Cinder, and what its administrator does with it.

It is started for those who ask for it, and ends with the lab. Its database is a file (SQLite).
Resources and fields are those of the Identity API v3
(https://docs.openstack.org/api-ref/identity/v3/).
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base import CACHE_DIR, ENGINE_ADDRESS
from lab.cinder.program import Program
from lab.namespace import Namespace
from lab.steps import Step

PORT = 5000
URL = f"http://{ENGINE_ADDRESS}:{PORT}/v3"
PACKAGES = CACHE_DIR / "keystone"
SCRIPT = Path(__file__).with_name("keystone_process.py")
# Who may do all; who Cinder is; where Cinder is according to the catalog, and where it is not.
ADMIN, ADMIN_PASSWORD = "admin", "administrator"
SERVICE_USER, SERVICE_PASSWORD, SERVICE_PROJECT = "cinder", "cinders", "service"
REGION, OTHER_REGION = "RegionOne", "RegionTwo"
CINDER_PORT = 8776
OTHER_CINDER = "http://cinder.elsewhere.invalid:8776"
TIMEOUT_S = 60

CONFIGURATION = """\
[DEFAULT]
log_file = {log}

[lab]
address = {address}
port = {port}

[database]
connection = sqlite:///{state}/database

[token]
provider = fernet

[fernet_tokens]
key_repository = {state}/keys

[fernet_receipts]
key_repository = {state}/keys

[cache]
enabled = false

[identity]
# Of the cheapest hashes: nobody's secret is kept here.
password_hash_rounds = 4

[oslo_policy]
enforce_scope = false
enforce_new_defaults = false
"""


@dataclass(frozen=True)
class Keystone:
    """The lab's Keystone, running or not."""

    namespace: Namespace
    lab_dir: Path

    @property
    def url(self) -> str:
        """Where version 3 of its API is."""
        return URL

    @property
    def log(self) -> Path:
        """What it logs."""
        return self.lab_dir / "log" / "keystone.log"

    @property
    def runs(self) -> bool:
        """Whether it serves."""
        return self._program.runs

    def start(self, step: Step) -> None:
        """Start it unless it runs, and have it know Cinder, in two regions."""
        if self.runs:
            return
        configuration = CONFIGURATION.format(
            state=self._program.state, log=self.log, address=ENGINE_ADDRESS, port=PORT
        )
        self._program.start(step, {"keystone.conf": configuration}, "keystone.conf")
        administrator = _Administrator()
        administrator.add_user(SERVICE_USER, SERVICE_PASSWORD, SERVICE_PROJECT, "admin")
        service = administrator.call("POST", "/services", service={"type": "block-storage"})
        administrator.call("POST", "/regions", region={"id": OTHER_REGION})
        ours = f"http://{ENGINE_ADDRESS}:{CINDER_PORT}/keystone"
        for region, root in ((REGION, ours), (OTHER_REGION, OTHER_CINDER)):
            endpoint = {
                "service_id": service["service"]["id"],
                "region_id": region,
                "interface": "public",
                "url": f"{root}/v3/%(project_id)s",
            }
            administrator.call("POST", "/endpoints", endpoint=endpoint)

    def add_user(self, name: str, password: str, project: str) -> None:
        """Make a user, who is a member of a project, which is made unless it is there."""
        _Administrator().add_user(name, password, project, "member")

    def revoke(self, token: str) -> None:
        """Take a token back."""
        _Administrator().call("DELETE", "/auth/tokens", {"X-Subject-Token": token})

    @property
    def _program(self) -> Program:
        state = self.lab_dir / "keystone"
        return Program("Keystone", self.namespace, SCRIPT, PACKAGES, state, self.log)


class _Administrator:
    """Who may do all with Keystone; reaches it within the lab's network."""

    def __init__(self) -> None:
        domain = {"name": "Default"}
        user = {"name": ADMIN, "password": ADMIN_PASSWORD, "domain": domain}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": ADMIN, "domain": domain}},
        }
        headers, _ = _ask("POST", "/auth/tokens", {}, {"auth": auth})
        self._token = str(headers["X-Subject-Token"])

    def call(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **body: Any
    ) -> Any:
        """What Keystone answers."""
        return _ask(method, path, {"X-Auth-Token": self._token, **(headers or {})}, body)[1]

    def add_user(self, name: str, password: str, project: str, role: str) -> None:
        """Make a user who has a role in a project."""
        found = self.call("GET", f"/projects?name={project}")["projects"]
        if not found:
            made = {"name": project, "domain_id": "default"}
            found = [self.call("POST", "/projects", project=made)["project"]]
        user = {"name": name, "password": password, "domain_id": "default"}
        user_id = self.call("POST", "/users", user=user)["user"]["id"]
        (grant,) = self.call("GET", f"/roles?name={role}")["roles"]
        self.call("PUT", f"/projects/{found[0]['id']}/users/{user_id}/roles/{grant['id']}")


def _ask(
    method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> tuple[Any, Any]:
    request = urllib.request.Request(
        f"{URL}{path}",
        method=method,
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        text = answer.read()
        return answer.headers, json.loads(text) if text else None
