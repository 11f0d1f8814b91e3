# SPDX-License-Identifier: GPL-2.0-or-later
"""Providers of the lab, their volumes, and what is refused, in the words of the tests."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cinderengine.errors import EngineError
from cinderengine.model.ids import new_id
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.volumes import opening
from lab.cinder.server import PROJECT
from lab.running import Lab
from lab.steps import Step


def cinder_of(lab: Lab, **changes: Any) -> Provider:
    """The lab's Cinder, which is started unless it runs."""
    lab.cinder.start(Step("Cinder", io.StringIO()))
    url = lab.cinder.url.removesuffix(f"/v3/{PROJECT}")
    return Provider(**{"id": new_id(), "name": "cinder", "url": url, "project": PROJECT, **changes})


@dataclass(frozen=True)
class Tenant:
    """Who has a project of the lab's Cinder, by its Keystone."""

    user: str
    password: str
    project: str


TENANT = Tenant("tenant", "tenants-passw0rd", "tenants-project")


def keystone_of(lab: Lab, **changes: Any) -> Provider:
    """The same Cinder for TENANT; its Keystone is started unless it runs."""
    lab.cinder.start(Step("Cinder", io.StringIO()))
    if not lab.keystone.runs:
        lab.keystone.start(Step("Keystone", io.StringIO()))
        lab.keystone.add_user(TENANT.user, TENANT.password, TENANT.project)
    return Provider(
        **{
            "id": new_id(),
            "name": "cinder",
            "url": lab.cinder.keystone_url,
            "requires_authentication": True,
            "authentication_url": lab.keystone.url,
            "username": TENANT.user,
            "project": TENANT.project,
            **changes,
        }
    )


def pool_of(lab: Lab, **changes: Any) -> Provider:
    """The lab's pool."""
    monitors = ",".join(monitor.address for monitor in lab.ceph.monitors)
    return Provider(
        **{
            "id": new_id(),
            "name": "pool",
            "url": f"rbd://{monitors}/{lab.ceph.pool}",
            "requires_authentication": True,
            "username": lab.ceph.user,
            **changes,
        }
    )


@contextlib.asynccontextmanager
async def opened(provider: Provider, password: str = "") -> AsyncIterator[Any]:
    """A provider's volumes (VolumeService), until the end of the block."""
    service = opening.open(provider, Secret(password))
    try:
        yield service
    finally:
        await service.close()


@contextlib.contextmanager
def refused(kind: type[EngineError], *words: str, without: str = "") -> Iterator[None]:
    """What is within is refused so, in a sentence with these words and without a secret."""
    with pytest.raises(EngineError) as caught:
        yield
    detail = caught.value.detail
    assert type(caught.value) is kind, detail
    assert "\n" not in detail and detail.endswith("."), detail
    assert [word for word in words if word not in detail] == [], detail
    assert not without or without not in detail


@contextlib.contextmanager
def nothing_logged_of(secret: str, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No library and none of our own logs it, at whatever level."""
    with caplog.at_level(logging.DEBUG):
        yield
    assert secret not in caplog.text
