# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Keystone before the real Cinder: who is let in, into which project, and for how long."""

from __future__ import annotations

import pytest

from cinderengine.errors import Conflict, Invalid, Unavailable
from cinderengine.model.ids import new_id
from cinderengine.volumes.service import GIB
from lab.base import ENGINE_ADDRESS
from lab.cinder.keystone import OTHER_CINDER, OTHER_REGION, REGION
from tests.engine.functional.providers import (
    TENANT,
    cinder_of,
    keystone_of,
    nothing_logged_of,
    opened,
    refused,
)

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def provider(lab):
    return keystone_of(lab)


async def check(lab, password=TENANT.password, **changes):
    async with opened(keystone_of(lab, **changes), password) as service:
        await service.check()


async def test_it_lets_in(lab):
    await check(lab)
    await check(lab, region=REGION, user_domain="Default", project_domain="Default")
    # Cinder tells where its Keystone is.
    await check(lab, authentication_url="")
    await check(lab, authentication_url=lab.keystone.url.removesuffix("/v3"))


async def test_a_project_by_its_id_in_the_url(lab):
    async with opened(keystone_of(lab), TENANT.password) as service:
        await service.check()
        project_id = service._client.project_id
    url = f"{lab.cinder.keystone_url}/v3/{project_id}"
    await check(lab, url=url)
    await check(lab, url=url, project="")
    with refused(Invalid, "0" * 32, TENANT.project, project_id):
        await check(lab, url=f"{lab.cinder.keystone_url}/v3/{'0' * 32}")


async def test_whom_it_does_not_let_in(lab, caplog):
    wrong, words = "wr0ng-passw0rd", (lab.keystone.url, TENANT.user, TENANT.project)
    with nothing_logged_of(wrong, caplog), refused(Invalid, *words, without=wrong):
        await check(lab, wrong)
    for changes in ({"username": "nobody"}, {"project": "none"}, {"user_domain": "none"}):
        ((_, word),) = changes.items()
        if "user_domain" in changes:
            word = "domains"
        with refused(Invalid, lab.keystone.url, word, without=TENANT.password):
            await check(lab, **changes)
    # A project that there is, in which the user has no role.
    with refused(Invalid, "service", "role"):
        await check(lab, project="service")


async def test_where_no_keystone_is(lab):
    with refused(Unavailable, "no.such.name.invalid", "DNS"):
        await check(lab, authentication_url="http://no.such.name.invalid:5000/v3")
    with refused(Unavailable, f"{ENGINE_ADDRESS}:1", "refuses connections"):
        await check(lab, authentication_url=f"http://{ENGINE_ADDRESS}:1/v3")
    with refused(Invalid, "no Keystone with version 3"):
        await check(lab, authentication_url=f"{lab.cinder.keystone_url}/elsewhere")
    with refused(Invalid, "another service than Cinder"):
        await check(lab, url=lab.keystone.url.removesuffix("/v3"))


async def test_regions(lab):
    with refused(Invalid, "Nowhere", REGION, OTHER_REGION):
        await check(lab, region="Nowhere")
    with refused(Invalid, REGION, OTHER_REGION):
        await check(lab, region=OTHER_REGION)
    with refused(Unavailable, "cinder.elsewhere.invalid"):
        await check(lab, url=OTHER_CINDER, region=OTHER_REGION)


async def test_a_token_that_ends_in_the_middle(lab):
    """Keystone takes it back: Cinder answers 401, and another one is had."""
    async with opened(keystone_of(lab), TENANT.password) as service:
        await service.check()
        old = service._client._token()
        lab.keystone.revoke(old)
        key = new_id()
        volume = await service.create(key, "disk", GIB)
        assert service._client._token() != old
        lab.keystone.revoke(service._client._token())
        assert (await service.settled(volume.id)).key == key
        await service.delete(volume.id)
        assert await service.settled(volume.id) is None


async def test_secrets_are_not_logged(lab, caplog):
    with nothing_logged_of(TENANT.password, caplog):
        async with opened(keystone_of(lab), TENANT.password) as service:
            await service.check()
            with nothing_logged_of(service._client._token(), caplog):
                await service.limits()


async def test_projects_do_not_see_each_other(lab):
    async with (
        opened(keystone_of(lab), TENANT.password) as tenant,
        opened(cinder_of(lab)) as another,
    ):
        volume = await tenant.create(new_id(), "disk", GIB)
        await tenant.settled(volume.id)
        # The lab's Cinder without Keystone has administrators only, who get at what they name.
        assert volume.id not in [found.id for found in await another.volumes()]
        await tenant.delete(volume.id)
        assert await tenant.settled(volume.id) is None


async def test_quotas_of_a_project(lab):
    """Whoever is no administrator may read them, and they hold for him."""
    async with (
        opened(keystone_of(lab), TENANT.password) as tenant,
        opened(cinder_of(lab)) as administrator,
    ):
        await tenant.check()
        path = f"/os-quota-sets/{tenant._client.project_id}"
        body = {"quota_set": {"per_volume_gigabytes": 2}}
        await administrator._call("PUT", path, "quota", body=body)
        try:
            assert (await tenant.limits()).per_volume_gib == 2
            with refused(Conflict, "3 GiB", "limit 2G"):
                await tenant.create(new_id(), "disk", 3 * GIB)
        finally:
            await administrator._call("DELETE", path, "quota")
