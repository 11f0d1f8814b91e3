# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's collection for Ansible, unmodified: a play that runs twice changes nothing then."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from lab import ansible
from lab.engine_service import EngineService
from tests.engine.functional.served import GIB, connected, reckon, storage_of

pytestmark = pytest.mark.nightly

HERE = Path(__file__).parent
TASK = re.compile(r"^TASK \[(.*)\] \**$")


@pytest.fixture(scope="module")
def storage(lab):
    return storage_of(lab, "pool")


@pytest.fixture(scope="module")
def engine(lab):
    with EngineService(lab, "ansible") as engine:
        yield engine


@pytest.fixture(scope="module")
def variables(engine, storage):
    """What plays are told; by a file that nobody else can read, for it has passwords."""
    file = engine.directory / "variables.json"
    file.touch(mode=0o600)
    fields = storage.fields
    told = {
        "engine_url": engine.url,
        "engine_password": engine.password,
        "engine_ca": str(engine.ca),
        "provider": {name: fields[name] for name in ("url", "username", "password")},
        "key_uuid": str(uuid.uuid4()),
        "volume_type": storage.lab.ceph.pool,
        "larger_size": "1GiB",
    }

    def tell(**changes):
        file.write_text(json.dumps({**told, **changes}))
        return file

    return tell


def play(name, file):
    """Run a play; the names of the tasks that have changed something, in their order."""
    done = subprocess.run(
        [ansible.PLAYBOOK, "--extra-vars", f"@{file}", HERE / name],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ansible.COLLECTIONS),
            "ANSIBLE_PYTHON_INTERPRETER": str(ansible.ENVIRONMENT / "bin" / "python"),
            "ANSIBLE_HOME": str(file.parent / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "LC_ALL": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    changed, task = [], ""
    for line in done.stdout.splitlines():
        if found := TASK.match(line):
            task = found[1]
        elif line.startswith("changed: "):
            changed.append(task)
    return changed


def test_a_play_that_runs_twice(engine, storage, variables):
    made = ["Provider and its key", "Storage domain", "Disk", "Larger disk"]
    assert play("play.yml", variables()) == made
    first = storage.images()
    assert list(first.values()) == [GIB, GIB]
    assert play("play.yml", variables()) == []
    assert storage.images() == first
    assert play("play.yml", variables(larger_size="2GiB")) == ["Larger disk"]
    with connected(engine) as connection:
        system = connection.system_service()
        reckon(system, storage)
        (larger,) = system.disks_service().list(search="name=larger")
        assert storage.images()[larger.id] == 2 * GIB
    assert play("play_removal.yml", variables()) == ["Disks", "Disks", "Storage domain", "Provider"]
    assert storage.images() == {}
    assert play("play_removal.yml", variables()) == []
    assert storage.fields["password"] not in engine.log.read_text()
    assert engine.password not in engine.log.read_text()
