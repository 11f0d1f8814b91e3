# SPDX-License-Identifier: GPL-2.0-or-later
"""The requests of oVirt's clients, as they were seen on the wire, in versions 3 and 4."""

from __future__ import annotations

import pytest

from cinderengine.store.entities import authentication_keys, events, jobs, providers
from tests.engine.unit.api.client import Got

GIB = 1 << 30
UUID = "0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2"
PROVIDER = """<openstack_volume_provider>
  <authentication_url>http://k:5000/v3</authentication_url>
  <name>cinder</name>
  <password>p</password>
  <requires_authentication>true</requires_authentication>
  <tenant_name>admin</tenant_name>
  <url>http://c:8776</url>
  <username>u</username>
  <data_center>
    <name>Default</name>
  </data_center>
</openstack_volume_provider>"""
KEY = f"""<openstack_volume_authentication_key>
  <description>d</description>
  <usage_type>ceph</usage_type>
  <uuid>{UUID}</uuid>
  <value>YQo=</value>
</openstack_volume_authentication_key>"""
DISK = """<disk>
  <alias>d1</alias>
  <format>raw</format>
  <provisioned_size>1073741824</provisioned_size>
  <storage_type>cinder</storage_type>
  <openstack_volume_type>
    <name>my_ceph</name>
  </openstack_volume_type>
  <storage_domains>
    <storage_domain>
      <name>cinder</name>
    </storage_domain>
  </storage_domains>
</disk>"""
# The feature page's own, for version 3: no kind of storage is named.
PAGES_DISK = """<disk>
    <openstack_volume_type>
        <name>my_ceph</name>
    </openstack_volume_type>
    <storage_domains>
        <storage_domain>
            <name>cinder</name>
        </storage_domain>
    </storage_domains>
    <alias>d1</alias>
    <provisioned_size>1073741824</provisioned_size>
    <interface>virtio</interface>
    <format>raw</format>
</disk>"""
VERSIONS = pytest.mark.parametrize("version", ["3", "4"])


class World:
    """An engine that has a provider, by what is in it."""

    def __init__(self, client, version: str) -> None:
        self.client = client
        self.version = version

    async def __call__(self, method: str, path: str, body: str | None = None, **headers) -> Got:
        return await self.client(method, path, body, Version=self.version, **headers)

    async def begin(self) -> None:
        added = await self("POST", "/openstackvolumeproviders", PROVIDER)
        assert added.status == 201, added.body
        self.provider = f"/openstackvolumeproviders/{added.id}"
        domains = await self("GET", "/storagedomains?search=name%3Dcinder")
        self.domain_id = domains.xml.find("storage_domain").get("id")
        self.domain = f"/storagedomains/{self.domain_id}"
        self.center_id = added.xml.find("data_center").get("id")
        self.attached = f"/datacenters/{self.center_id}{self.domain}"

    def status(self, got: Got) -> str:
        return got.text("status/state") if self.version == "3" else got.text("status")


@pytest.fixture(params=["3", "4"])
async def world(client, request):
    world = World(client, request.param)
    await world.begin()
    return world


# Providers


async def test_a_provider_is_added_shown_edited_and_removed(world, engine) -> None:
    got = await world("GET", world.provider, All_Content="true")
    assert got.text("name") == "cinder"
    assert got.text("url") == "http://c:8776"
    assert got.text("requires_authentication") == "true"
    assert got.text("username") == "u"
    assert got.text("tenant_name") == "admin"
    assert got.text("authentication_url") == "http://k:5000/v3"
    assert got.xml.find("password") is None
    assert got.xml.find("data_center").get("href").endswith(f"/datacenters/{world.center_id}")
    rels = [link.get("rel") for link in got.xml.findall("link")]
    assert rels == ["volumetypes", "authenticationkeys", "certificates"]
    assert [link.get("rel") for link in got.xml.findall("actions/link")] == ["testconnectivity"]
    kept = await engine.parts.store.read(providers.all)
    assert "p" != kept[0].sealed_password != ""
    body = "<openstack_volume_provider><description>new</description></openstack_volume_provider>"
    got = await world("PUT", world.provider, body)
    assert (got.status, got.text("description"), got.text("name")) == (200, "new", "cinder")
    listed = await world("GET", "/openstackvolumeproviders?search=name%3D%22cinder%22")
    assert [one.get("id") for one in listed.xml] == [got.id]
    assert (await world("POST", f"{world.provider}/testconnectivity", "<action/>")).status == 200
    assert (await world("DELETE", world.provider)).status == 409
    await world("POST", f"{world.attached}/deactivate", "<action/>")
    gone = await world("DELETE", world.provider)
    assert gone.status == (202 if world.version == "3" else 200)
    assert (await world("GET", world.provider)).status == 404


async def test_a_location_is_where_what_was_added_is(world) -> None:
    got = await world("POST", "/datacenters", "<data_center><name>x</name></data_center>")
    assert got.headers["Location"] == f"{world.client.url}/ovirt-engine/api/datacenters/{got.id}"


async def test_properties_of_a_provider_say_what_no_field_does(world) -> None:
    body = (
        "<openstack_volume_provider><properties><property><name>region</name><value>east</value>"
        "</property></properties></openstack_volume_provider>"
    )
    got = await world("PUT", world.provider, body)
    assert got.text("properties/property/value") == "east"


async def test_volume_types(world) -> None:
    got = await world("GET", f"{world.provider}/volumetypes")
    prefix = "openstack" if world.version == "3" else "open_stack"
    assert got.xml.tag == f"{prefix}_volume_types"
    kind = got.xml.find(f"{prefix}_volume_type")
    assert kind.findtext("name") == "my_ceph"
    assert kind.findtext("properties/property/name") == "volume_backend_name"
    assert kind.find("openstack_volume_provider").get("href").endswith(world.provider)
    one = await world("GET", f"{world.provider}/volumetypes/{kind.get('id')}")
    assert one.xml.tag == f"{prefix}_volume_type"
    assert (await world("GET", f"{world.provider}/volumetypes/none")).status == 404


async def test_authentication_keys(world, engine) -> None:
    keys = f"{world.provider}/authenticationkeys"
    got = await world("POST", keys, KEY)
    assert got.status == 201
    assert (got.text("uuid"), got.text("usage_type")) == (UUID, "ceph")
    assert got.text("creation_date")
    for answer in (got, await world("GET", keys), await world("GET", f"{keys}/{got.id}")):
        assert b"YQo=" not in answer.body
        assert b"value" not in answer.body
    kept = (await engine.parts.store.read(authentication_keys.all))[0]
    assert kept.revision == 1
    kind = "openstack_volume_authentication_key"
    body = f"<{kind}><value>YQo=</value></{kind}>"
    assert (await world("PUT", f"{keys}/{got.id}", body)).status == 200
    assert (await engine.parts.store.read(authentication_keys.all))[0].revision == 2
    assert (await world("POST", keys, KEY)).status == 409
    incomplete = await world("POST", keys, KEY.replace("uuid>", "comment>"))
    assert incomplete.text("reason") == "Incomplete parameters"
    assert (await world("DELETE", f"{keys}/{got.id}")).status in {200, 202}
    assert len((await world("GET", keys)).xml) == 0


# Storage domains


async def test_a_storage_domain_comes_with_its_provider(world) -> None:
    got = await world("GET", world.domain)
    assert (got.text("name"), got.text("type")) == ("cinder", "volume")
    assert got.text("storage/type") == "cinder"
    assert world.status(got) == "active"
    attached = await world("GET", world.attached)
    assert attached.xml.get("href") == f"/ovirt-engine/api{world.attached}"
    assert [link.get("rel") for link in attached.xml.findall("actions/link")] == [
        "activate",
        "deactivate",
    ]


async def test_a_storage_domain_is_deactivated_detached_and_attached(world) -> None:
    body = "<action><async>true</async><force>false</force></action>"
    done = await world("POST", f"{world.attached}/deactivate", body)
    assert (done.status, done.xml.tag, world.status(done)) == (200, "action", "complete")
    assert world.status(await world("GET", world.attached)) == "maintenance"
    assert (await world("POST", f"{world.attached}/activate", "<action/>")).status == 200
    assert world.status(await world("GET", world.attached)) == "active"
    assert (await world("DELETE", f"{world.attached}?async=true")).status in {202, 409}
    await world("POST", f"{world.attached}/deactivate")
    detached = await world("DELETE", f"{world.attached}?async=true")
    assert detached.status == (202 if world.version == "3" else 200)
    assert world.status(await world("GET", world.domain)) == "unattached"
    assert (await world("GET", world.attached)).status == 404
    at = f"/datacenters/{world.center_id}/storagedomains"
    got = await world("POST", at, f'<storage_domain id="{world.domain_id}"/>')
    assert (got.status, world.status(got)) == (201, "active")


async def test_a_storage_domain_is_neither_added_nor_removed_alone(world) -> None:
    got = await world("POST", "/storagedomains", "<storage_domain><name>x</name></storage_domain>")
    assert got.status == 400
    assert "openstackvolumeproviders" in got.detail
    got = await world("DELETE", world.domain, "<storage_domain><host/></storage_domain>")
    assert got.status == 409
    assert "openstackvolumeproviders" in got.detail
    edited = await world(
        "PUT", world.domain, "<storage_domain><comment>c</comment></storage_domain>"
    )
    assert edited.text("comment") == "c"


async def test_what_is_searched_by_what_it_is_in(world) -> None:
    async def names(path: str) -> list[str]:
        got = await world("GET", path)
        assert got.status == 200, got.body
        return [one.findtext("name") for one in got.xml]

    host = "<host><name>h</name><cluster><name>Default</name></cluster></host>"
    assert (await world("POST", "/hosts", host)).status == 201
    assert await names("/datacenters?search=storage%3Dcinder") == ["Default"]
    assert await names("/datacenters?search=storage%3Dother") == []
    assert await names("/clusters?search=datacenter%3DDefault") == ["Default"]
    assert await names("/storagedomains?search=datacenter%3DDefault") == ["cinder"]
    assert await names("/hosts?search=cluster%3DDefault%20and%20datacenter%3DDefault") == ["h"]
    assert await names("/hosts?search=cluster%3Dother") == []


# Disks


@pytest.mark.parametrize("body", [DISK, PAGES_DISK], ids=["client", "page"])
async def test_a_disk_is_added_and_is_ok_when_its_volume_is(world, engine, body) -> None:
    engine.volumes.held.clear()
    got = await world("POST", "/disks", body)
    assert got.status == 201, got.body
    assert world.status(got) == "locked"
    assert got.text("alias") == "d1"
    assert got.text("provisioned_size") == str(GIB)
    assert (got.xml.find("size") is not None) == (world.version == "3")
    assert got.text("storage_type") == "cinder"
    assert got.text("openstack_volume_type/name") == "my_ceph"
    assert got.xml.find("storage_domains/storage_domain").get("id") == world.domain_id
    assert got.id in engine.volumes.kept
    engine.volumes.held.set()
    job = (await engine.parts.store.read(jobs.all))[0]
    await engine.runner.ended(job.id)
    assert world.status(await world("GET", f"/disks/{got.id}")) == "ok"


async def added(world, engine) -> str:
    got = await world("POST", "/disks", DISK)
    assert got.status == 201, got.body
    await engine.idle()
    return f"/disks/{got.id}"


async def test_a_disk_is_extended_and_renamed(world, engine) -> None:
    disk = await added(world, engine)
    got = await world("PUT", disk, "<disk><provisioned_size>2147483648</provisioned_size></disk>")
    assert got.status == 200, got.body
    await engine.idle()
    assert (await world("GET", disk)).text("provisioned_size") == str(2 * GIB)
    got = await world("PUT", disk, "<disk><name>other</name></disk>")
    assert got.text("alias") == "other"
    smaller = await world("PUT", disk, "<disk><provisioned_size>5</provisioned_size></disk>")
    assert smaller.status == 400
    assert "cannot become smaller" in smaller.detail


async def test_a_volume_type_may_be_given_by_its_id(world) -> None:
    by_id = '<openstack_volume_type id="{}"/>'
    named = "<openstack_volume_type>\n    <name>my_ceph</name>\n  </openstack_volume_type>"
    got = await world("POST", "/disks", DISK.replace(named, by_id.format("t1")))
    assert (got.status, got.text("openstack_volume_type/name")) == (201, "my_ceph")
    got = await world("POST", "/disks", DISK.replace(named, by_id.format("none")))
    assert got.status == 404
    assert "give one by its name: my_ceph" in got.detail


async def test_who_expects_a_disk_to_be_made_gets_it_made(world, engine) -> None:
    got = await world("POST", "/disks", DISK, Expect="201-created")
    assert (got.status, world.status(got)) == (201, "ok")


@pytest.mark.parametrize("body", ["<action/>", "<disk/>", "<action><async>true</async></action>"])
async def test_a_removal_may_have_a_body(world, engine, body) -> None:
    disk = await added(world, engine)
    assert (await world("DELETE", f"{disk};async", body)).status == 202


@pytest.mark.parametrize("path", ["{}", "{}?async=true", "{};async", "{};async=True"])
async def test_a_disk_is_removed(world, engine, path) -> None:
    disk = await added(world, engine)
    gone = await world("DELETE", path.format(disk))
    accepted = world.version == "3" or ";async" in path
    assert gone.status == (202 if accepted else 200)
    assert gone.xml.tag == "action"
    await engine.idle()
    assert (await world("GET", disk)).status == 404
    assert engine.volumes.kept == {}


async def test_a_removal_that_fails_is_told_to_who_waits(world, engine, monkeypatch) -> None:
    disk = await added(world, engine)

    async def kept(volume_id: str) -> None:
        """As if somebody else stood against it: it stays."""

    monkeypatch.setattr(engine.volumes, "delete", kept)
    gone = await world("DELETE", disk, X_Ovirt_Expect="201-created")
    assert gone.status == 400
    assert "was not deleted" in gone.detail
    await engine.idle()
    assert world.status(await world("GET", disk)) == "illegal"


@pytest.mark.parametrize(
    "path", ["disks;unregistered", "disks;unregistered=True", "disks?unregistered=true"]
)
async def test_volumes_that_are_nobodys_are_listed_and_registered(world, engine, path) -> None:
    await added(world, engine)
    found = engine.volumes.put("old", 3 * GIB)
    more = ";case_sensitive=True" if ";" in path else "&case_sensitive=true"
    listed = await world("GET", f"{world.domain}/{path}{more}")
    assert [one.get("id") for one in listed.xml.findall("disk")] == [found.id]
    assert listed.text("disk/alias") == "old"
    got = await world("POST", f"{world.domain}/{path}", f'<disk id="{found.id}"/>')
    assert got.status == 201, got.body
    assert (got.id, world.status(got)) == (found.id, "ok")
    assert len((await world("GET", f"{world.domain}/disks")).xml) == 2
    assert len((await world("GET", f"{world.domain}/{path}")).xml) == 0
    again = await world("POST", f"{world.domain}/{path}", f'<disk id="{found.id}"/>')
    assert again.status == 409


async def test_a_volume_is_registered_by_an_action(world, engine) -> None:
    found = engine.volumes.put("old")
    got = await world("POST", f"{world.attached}/disks/{found.id}/register", "<action/>")
    assert got.status == 200, got.body
    assert (await world("GET", f"/disks/{found.id}")).status == 200
    none = await world("POST", f"{world.attached}/disks/none/register", "<action/>")
    assert none.status == 404


@pytest.mark.parametrize(
    "change, words",
    [
        (("<name>cinder</name>", "<name>none</name>"), "storage domain has the name 'none'"),
        (("<storage_domains>", "<vms>"), "no storage_domains"),
        (("<provisioned_size>1073741824</provisioned_size>", ""), "no provisioned_size"),
        (("1073741824", "much"), "Field provisioned_size of disk has a value 'much'"),
        (("<alias>d1</alias>", ""), "no alias"),
        (("my_ceph", "no_type"), "cannot have the volume type no_type"),
    ],
)
async def test_what_a_disk_lacks_is_told(world, engine, change, words) -> None:
    body = DISK.replace(*change).replace(
        "</storage_domains>" if "<vms>" in change else "\0", "</vms>"
    )
    got = await world("POST", "/disks", body)
    assert got.status in {400, 404}
    assert words in got.detail
    assert engine.volumes.kept == {}


# Hosts


async def test_a_host_is_added_activated_and_removed(world) -> None:
    cluster = "<cluster><name>Default</name></cluster>"
    body = f"<host><name>h1</name><address>10.0.0.1</address>{cluster}</host>"
    got = await world("POST", "/hosts", body)
    assert got.status == 201
    assert "vdsm-cinder join" in got.text("comment")
    host = f"/hosts/{got.id}"
    assert world.status(got) == "pending_approval"
    assert (await world("POST", f"{host}/activate", "<action/>")).status == 200
    shown = await world("GET", host)
    assert world.status(shown) == "up"
    assert shown.text("memory") == str(64 << 30)
    statistics = await world("GET", f"{host}/statistics")
    told = {one.findtext("name"): one.findtext("values/value/datum") for one in statistics.xml}
    assert told["memory.free"] == "1024"
    assert told["memory.used"] == str((64 << 30) - 1024)
    assert "swap.total" not in told
    assert (await world("POST", f"{host}/deactivate", "<action/>")).status == 200
    assert (await world("DELETE", host)).status in {200, 202}
    assert (await world("GET", host)).status == 404


async def test_no_host_is_installed_over_ssh(world) -> None:
    body = (
        "<host><name>h1</name><address>a</address><root_password>root-pw</root_password>"
        "<cluster><name>Default</name></cluster></host>"
    )
    got = await world("POST", "/hosts", body)
    assert got.status == 400
    assert "leave out root_password and ssh" in got.detail
    assert "root-pw" not in got.detail


# Jobs and events


async def test_jobs_and_events_tell_what_became_of_a_request(world, engine) -> None:
    got = await world("POST", "/disks", DISK, Correlation_Id="one-2")
    await engine.idle()
    found = await world("GET", "/jobs?search=correlation_id%3Done-2")
    job = found.xml.find("job")
    assert (job.findtext("status/state") or job.findtext("status")) == "finished"
    steps = await world("GET", f"/jobs/{job.get('id')}/steps")
    assert {world_status(step) for step in steps.xml} == {"finished"}
    step = await world("GET", f"/jobs/{job.get('id')}/steps/{steps.xml[0].get('id')}")
    assert step.xml.find("job").get("id") == job.get("id")
    newest = await world("GET", "/events?max=1")
    number = int(newest.xml.find("event").get("id"))
    assert len((await world("GET", f"/events?from={number}")).xml) == 0
    assert len((await world("GET", f"/events?from={number - 1}")).xml) == 1
    assert len(newest.xml) == 1
    assert newest.text("event/correlation_id") == "one-2"
    assert (await world("GET", f"/events/{number}")).id == str(number)
    assert (await world("GET", "/events/x")).status == 404
    told = await engine.parts.store.read(events.all)
    assert got.status == 201
    assert len(told) >= number


def world_status(element) -> str:
    return element.findtext("status/state") or element.findtext("status")


# Follow, search, pages


async def test_all_content_of_a_provider_is_its_data_center_too(world) -> None:
    """As the page of the Cinder integration shows it."""
    whole = await world("GET", world.provider, All_Content="true")
    assert whole.text("data_center/name") == "Default"
    listed = await world("GET", "/openstackvolumeproviders?all_content=true")
    assert listed.text("openstack_volume_provider/data_center/name") == "Default"
    bare = await world("GET", world.provider)
    assert bare.xml.find("data_center").get("id")
    assert bare.text("data_center/name") == ""


async def test_links_are_followed(world, engine) -> None:
    await added(world, engine)
    got = await world("GET", f"{world.provider}?follow=datacenter,authentication_keys")
    assert got.text("data_center/name") == "Default"
    await world("POST", f"{world.provider}/authenticationkeys", KEY)
    listed = await world("GET", "/openstackvolumeproviders?follow=authenticationkeys,colour&max=5")
    keys = listed.xml.find("openstack_volume_provider/authentication_keys")
    assert [key.findtext("uuid") for key in keys] == [UUID]
    disks_ = await world("GET", "/disks?follow=storage_domains.data_centers")
    path = "disk/storage_domains/storage_domain/data_centers/data_center/name"
    assert disks_.text(path) == "Default"


async def test_disks_are_searched_sorted_and_paged(world, engine) -> None:
    for name in ("b", "a", "c"):
        await world("POST", "/disks", DISK.replace("d1", name))
    await engine.idle()

    async def aliases(query: str) -> list[str]:
        got = await world("GET", f"/disks?{query}")
        assert got.status == 200, got.body
        return [one.findtext("alias") for one in got.xml]

    assert await aliases("search=name%3Da") == ["a"]
    assert await aliases("search=alias%3D*%20sortby%20alias%20desc") == ["c", "b", "a"]
    assert await aliases("search=sortby%20alias%20page%202&max=2") == ["c"]
    assert await aliases("search=storage%3Dcinder%20and%20name%3DB&case_sensitive=false") == ["b"]
    assert len(await aliases("max=2")) == 2
    wrong = await world("GET", "/disks?search=colour%3Dred")
    assert "no search by 'colour'" in wrong.detail


# What is there and empty


@VERSIONS
@pytest.mark.parametrize(
    "path",
    [
        "vms",
        "vmpools",
        "networks",
        "macpools",
        "tags",
        "roles",
        "users",
        "groups",
        "domains",
        "permissions",
        "icons",
        "bookmarks",
        "instancetypes",
        "affinitylabels",
        "templates",
        "openstackimageproviders",
        "openstacknetworkproviders",
        "operatingsystems",
        "clusters",
        "schedulingpolicies",
        "storageconnections",
        "vnicprofiles",
        "diskprofiles",
        "hosts",
    ],
)
async def test_what_clients_look_into_is_there(client, path, version) -> None:
    got = await client("GET", f"/{path}?search=name%3DBlank", Version=version)
    assert got.status == 200, got.body
    for one in got.xml:
        assert (await client("GET", f"/{path}/{one.get('id')}", Version=version)).status == 200


async def test_data_centers_and_clusters(world) -> None:
    got = await world(
        "POST", "/datacenters", "<data_center><name>east</name><local>false</local></data_center>"
    )
    center = f"/datacenters/{got.id}"
    assert world.status(got) == "uninitialized"
    body = f'<cluster><name>c</name><data_center id="{got.id}"/><cpu><type>x</type></cpu></cluster>'
    cluster = await world("POST", "/clusters", body)
    assert cluster.status == 201
    assert [one.get("id") for one in (await world("GET", f"{center}/clusters")).xml] == [cluster.id]
    elsewhere = f"/datacenters/{world.center_id}/clusters/{cluster.id}"
    assert (await world("GET", elsewhere)).status == 404
    edited = await world(
        "PUT", f"/clusters/{cluster.id}", "<cluster><comment>k</comment></cluster>"
    )
    assert edited.text("comment") == "k"
    assert (await world("DELETE", center)).status == 409
    assert (await world("DELETE", f"/clusters/{cluster.id}")).status in {200, 202}
    renamed = await world("PUT", center, "<data_center><name>west</name></data_center>")
    assert renamed.text("name") == "west"
    assert (await world("DELETE", center)).status in {200, 202}
    body = "<data_center><name>Default</name></data_center>"
    assert (await world("POST", "/datacenters", body)).status == 409
