# SPDX-License-Identifier: GPL-2.0-or-later
"""What the worker that asks librbd is told and says, and that it is not waited for too long."""

from __future__ import annotations

import json

import pytest

from vdsmcinder.ceph import image_size as module
from vdsmcinder.ceph.hosts import MonitorHost
from vdsmcinder.ceph.image_size import ImageAddress, image_size
from vdsmcinder.errors import ImageNotFound, ResourceUnavailable


def test_the_request():
    hosts = (MonitorHost("10.0.0.1", 6789, None), MonitorHost("fd00::1", 3300, None))
    request = ImageAddress("volumes/a", hosts, user="cinder", key=b"\0key").request()
    assert json.loads(request) == {
        "path": "volumes/a",
        "mon_host": "10.0.0.1:6789,[fd00::1]:3300",
        "conf_file": None,
        "user": "cinder",
        "key": "AGtleQ==",
    }


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Puts other code in the worker's place."""

    def put(code):
        (tmp_path / "stand_in.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(module, "_WORKER", "stand_in")

    return put


async def test_its_answer(worker):
    worker("import json, sys; print(json.dumps({'size': len(json.load(sys.stdin)['path'])}))")
    assert await image_size(ImageAddress("p/i", ()), 30) == 3


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("{'missing': True, 'error': 'x'}", ImageNotFound, "image p/i does not exist"),
        ("{'error': 'EPERM'}", ResourceUnavailable, "could not be read from Ceph: EPERM"),
    ],
)
async def test_what_it_cannot_tell(worker, said, error, words):
    worker(f"import json; print(json.dumps({said}))")
    with pytest.raises(error) as caught:
        await image_size(ImageAddress("p/i", ()), 30)
    assert words in caught.value.message


async def test_a_worker_that_dies(worker):
    worker("raise SystemExit(1)")
    with pytest.raises(ResourceUnavailable, match="ended without a word"):
        await image_size(ImageAddress("p/i", ()), 30)


async def test_a_worker_that_hangs_is_ended(worker):
    worker("import time; time.sleep(600)")
    with pytest.raises(ResourceUnavailable, match=r"within 0\.2 s; check the monitors"):
        await image_size(ImageAddress("p/i", ()), 0.2)
