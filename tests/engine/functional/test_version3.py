# SPDX-License-Identifier: GPL-2.0-or-later
"""The XML of the feature page and of version 3 by curl: in both versions, in XML and in JSON."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from lxml import etree

from lab.engine_service import ADMIN, EngineService
from tests.engine.functional.served import GIB, storage_of, until

pytestmark = pytest.mark.nightly

KEY_UUID = "0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2"
CURL = ("curl", "--silent", "--show-error", "--include", "--globoff")
XML, JSON = "application/xml", "application/json"


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def kind(self) -> str:
        """The media type, without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def document(self) -> Document:
        """The body, whichever of the two it is."""
        if self.kind == JSON:
            return Document("", json.loads(self.body))
        root = etree.fromstring(self.body.encode())
        return Document(root.tag, root)


@dataclass(frozen=True)
class Document:
    """An object as XML or JSON has it; what is not there is empty. tag: of XML."""

    tag: str
    node: Any

    def __getitem__(self, path: str) -> str:
        """The text at a path such as storage_domains/storage_domain/id."""
        at = self.node
        if isinstance(at, dict):
            for name in path.split("/"):
                at = at[0] if isinstance(at, list) else at
                at = at.get(name, "")
                if at == "":
                    return ""
            return str(at)
        above, _, last = path.rpartition("/")
        found = at.find(above) if above else at
        if found is None:
            return ""
        # Ids are attributes, and so is in version 3 what a version is made of.
        return str(found.findtext(last) or found.get(last) or "")

    def members(self, name: str) -> list[Document]:
        """Those of a collection, each an element of that name in XML."""
        if isinstance(self.node, dict):
            return [Document("", one) for one in self.node.get(name, ())]
        assert {child.tag for child in self.node} <= {name}, etree.tostring(self.node)
        return [Document(child.tag, child) for child in self.node]


@dataclass(frozen=True)
class Dialect:
    """How one kind of client asks. version: as a header, if at all."""

    prefix: str
    version: str
    media: str
    three: bool

    def __str__(self) -> str:
        how = f"Version-{self.version}" if self.version else self.prefix.rpartition("/")[2]
        return f"{how}-{self.media.rpartition('/')[2]}"


DIALECTS = [
    Dialect(prefix, version, media, three)
    for prefix, version, three in (
        ("/api", "3", True),
        ("/ovirt-engine/api/v3", "", True),
        ("/ovirt-engine/api", "4", False),
        ("/ovirt-engine/api/v4", "", False),
    )
    for media in (XML, JSON)
]


class Curl:
    """curl, as a person calls it; the password goes by its standard input."""

    def __init__(self, engine: EngineService, dialect: Dialect) -> None:
        self.dialect = dialect
        self._engine = engine
        self._user = f"{ADMIN}:{engine.password}"

    def __call__(self, method: str, path: str, xml: str = "", *headers: str) -> Answer:
        """Send an example, which is XML here, and JSON where that is the dialect."""
        dialect = self.dialect
        accepted = (*headers, f"Accept: {dialect.media}")
        if dialect.version:
            accepted = (*accepted, f"Version: {dialect.version}")
        body = xml
        if xml and dialect.media == JSON:
            body = json.dumps(as_json(etree.fromstring(xml)))
        if body:
            accepted = (*accepted, f"Content-Type: {dialect.media}")
        return self.raw(method, f"{self._engine.root}{dialect.prefix}{path}", body, *accepted)

    def raw(self, method: str, url: str, body: str, *headers: str) -> Answer:
        """Send what is given, to a URL."""
        lines = [f'user = "{self._user}"', *(f'header = "{header}"' for header in headers)]
        if body:
            quoted = body.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            lines.append(f'data = "{quoted}"')
        done = subprocess.run(
            [*CURL, "--request", method, "--cacert", self._engine.ca, "--config", "-", url],
            input="\n".join(lines),
            text=True,
            capture_output=True,
            check=True,
        )
        return _read(done.stdout)


def _read(said: str) -> Answer:
    head, _, body = said.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.split("\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(int(status.split()[1]), headers, body)


def as_json(element: Any) -> Any:
    """An example as JSON has it: attributes are members, plurals have lists."""
    if not len(element) and not element.attrib and element.getparent() is not None:
        return (element.text or "").strip()
    members: dict[str, Any] = dict(element.attrib)
    for child in element:
        if child.tag == f"{element.tag}s" or element.tag == f"{child.tag}s":
            members.setdefault(child.tag, []).append(as_json(child))
        else:
            members[child.tag] = as_json(child)
    return members


@pytest.fixture(scope="module")
def storage(lab):
    return storage_of(lab, "pool")


@pytest.fixture(scope="module")
def engine(lab):
    with EngineService(lab, "curl") as engine:
        yield engine


@pytest.fixture(params=DIALECTS, ids=str)
def curl(request, engine):
    return Curl(engine, request.param)


@pytest.fixture
def provider(curl, storage):
    """The page's first example, with values; its domain is active, as the API says."""
    fields = storage.fields
    added = curl(
        "POST",
        "/openstackvolumeproviders",
        f"""
        <openstack_volume_provider>
            <name>cinder2</name>
            <url>{fields["url"]}</url>
            <data_center>
                <name>Default</name>
            </data_center>
            <requires_authentication>true</requires_authentication>
            <username>{fields["username"]}</username>
            <password>{fields["password"]}</password>
            <tenant_name></tenant_name>
        </openstack_volume_provider>
        """,
    )
    assert added.status == 201, added
    yield added.document["id"]
    for disk in curl("GET", "/disks").document.members("disk"):
        assert curl("DELETE", f"/disks/{disk['id']}").status in (200, 202)
    until(lambda: curl("GET", "/disks").document.members("disk") == [], "no disk to be left")
    assert storage.images() == {}
    (domain,) = curl("GET", "/storagedomains").document.members("storage_domain")
    (center,) = curl("GET", "/datacenters").document.members("data_center")
    path = f"/datacenters/{center['id']}/storagedomains/{domain['id']}/deactivate"
    assert curl("POST", path, "<action/>").status == 200
    assert curl("DELETE", f"/openstackvolumeproviders/{added.document['id']}").status in (200, 202)


@pytest.fixture
def domain(curl, provider):
    (domain,) = curl("GET", "/storagedomains;search=name%3Dcinder2").document.members(
        "storage_domain"
    )
    assert status_of(curl, domain) == "active"
    return domain["id"]


def status_of(curl, document):
    """Version 3 has it one level deeper."""
    return document["status/state"] if curl.dialect.three else document["status"]


def is_ok(curl, disk_id):
    def look():
        disk = curl("GET", f"/disks/{disk_id}").document
        assert status_of(curl, disk) in ("ok", "locked")
        return disk if status_of(curl, disk) == "ok" else None

    return until(look, f"disk {disk_id} to be ok")


def test_the_root(curl):
    answer = curl("GET", "")
    assert (answer.status, answer.kind) == (200, curl.dialect.media)
    assert answer.document["product_info/name"]
    assert answer.document["product_info/version/major"] == "4"
    prefix = curl.dialect.prefix
    assert f"{prefix}/openstackvolumeproviders" in answer.body
    if "/v" not in prefix:
        assert not re.search(r"/api/v[34]/", answer.body)


def test_a_provider(curl, provider, storage):
    got = curl("GET", "/openstackvolumeproviders", "", "All-Content: true")
    assert got.status == 200
    (found,) = got.document.members("openstack_volume_provider")
    assert (found["id"], found["name"]) == (provider, "cinder2")
    assert found["requires_authentication"] == "true"
    assert found["username"] == storage.fields["username"]
    assert found["data_center/id"]
    assert storage.fields["password"] not in got.body
    # The page's example has the name of the collection around one.
    one = curl("GET", f"/openstackvolumeproviders/{provider}", "", "All-Content: true")
    assert one.document["data_center/name"] == "Default"
    if curl.dialect.media == XML:
        assert got.document.tag == "openstack_volume_providers"
        assert one.document.tag == "openstack_volume_provider"
        href = one.document.node.get("href")
        assert href == f"{curl.dialect.prefix}/openstackvolumeproviders/{provider}"


def test_volume_types(curl, provider, storage):
    got = curl("GET", f"/openstackvolumeproviders/{provider}/volumetypes")
    # In version 4 these names have one more underscore, when they stand at the root.
    three = "openstack_volume_type" if curl.dialect.three else "open_stack_volume_type"
    if curl.dialect.media == XML:
        assert got.document.tag == f"{three}s"
    names = "openstack_volume_type" if curl.dialect.three else None
    members = got.document.members(names or three)
    if not members and curl.dialect.media == JSON:
        members = got.document.members("openstack_volume_type")
    (kind,) = members
    assert kind["name"] == storage.lab.ceph.pool
    assert kind["properties/property/name"] == "features"
    assert "layering" in kind["properties/property/value"]
    assert kind["openstack_volume_provider/id"] == provider


def test_authentication_keys(curl, provider):
    path = f"/openstackvolumeproviders/{provider}/authenticationkeys"
    added = curl(
        "POST",
        path,
        f"""
        <openstack_volume_authentication_key>
            <uuid>{KEY_UUID}</uuid>
            <description>my ceph secret</description>
            <usage_type>ceph</usage_type>
            <value>YQo=</value>
        </openstack_volume_authentication_key>
        """,
    )
    assert added.status == 201, added
    got = curl("GET", path)
    if curl.dialect.media == XML:
        assert got.document.tag == "openstack_volume_authentication_keys"
    (key,) = got.document.members("openstack_volume_authentication_key")
    assert (key["description"], key["uuid"]) == ("my ceph secret", KEY_UUID)
    assert key["usage_type"] == "ceph"
    if curl.dialect.media == XML:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\S+", key["creation_date"])
    else:
        assert key["creation_date"].isdigit()
    assert "YQo=" not in added.body + got.body
    assert curl("DELETE", f"{path}/{key['id']}").status in (200, 202)


def test_a_disk(curl, domain, storage):
    """The page's example: by its volume type, and without a storage type; without a VM."""
    added = curl(
        "POST",
        "/disks",
        f"""
        <disk>
            <alias>d1</alias>
            <openstack_volume_type>
                <name>{storage.lab.ceph.pool}</name>
            </openstack_volume_type>
            <storage_domains>
                <storage_domain>
                    <name>cinder2</name>
                </storage_domain>
            </storage_domains>
            <provisioned_size>1073741824</provisioned_size>
            <interface>virtio</interface>
            <format>raw</format>
        </disk>
        """,
    )
    assert added.status == 201, added
    disk = is_ok(curl, added.document["id"])
    assert disk["provisioned_size"] == str(GIB) == str(storage.images()[disk["id"]])
    assert disk["openstack_volume_type/name"] == storage.lab.ceph.pool
    assert disk["storage_domains/storage_domain/id"] == domain
    larger = "<disk><provisioned_size>2147483648</provisioned_size></disk>"
    assert curl("PUT", f"/disks/{disk['id']}", larger).status == 200
    until(lambda: is_ok(curl, disk["id"])["provisioned_size"] == str(2 * GIB), "it to be larger")
    assert storage.images()[disk["id"]] == 2 * GIB
    # The page's last example, of what is deleted while nobody waits.
    assert curl("DELETE", f"/disks/{disk['id']};async", "<action></action>").status == 202
    until(lambda: curl("GET", f"/disks/{disk['id']}").status == 404, "the disk to be gone")
    assert storage.images() == {}


@pytest.mark.parametrize("flag", [";unregistered", ";unregistered=True", "?unregistered=true"])
def test_volumes_that_are_no_disks_yet(curl, domain, storage, flag):
    volume = str(uuid.uuid4())
    storage.lab.ceph.create_image(f"volume-{volume}", 1024)
    path = f"/storagedomains/{domain}/disks"
    found = curl("GET", path + flag).document.members("disk")
    assert [disk["id"] for disk in found] == [volume]
    assert curl("GET", path).document.members("disk") == []
    added = curl("POST", path + flag, f'<disk id="{volume}"></disk>')
    assert added.status == 201, added
    assert status_of(curl, added.document) == "ok"
    assert curl("GET", path + flag).document.members("disk") == []
    again = curl("POST", path + flag, f'<disk id="{volume}"></disk>')
    assert again.status == 409
    assert volume in again.document["detail"]


def test_what_is_expected(curl, domain):
    body = """<disk><alias>d2</alias><provisioned_size>1</provisioned_size><storage_domains>
        <storage_domain><name>cinder2</name></storage_domain></storage_domains></disk>"""
    added = curl("POST", "/disks", body, "Expect: 201-created")
    assert (added.status, status_of(curl, added.document)) == (201, "ok"), added
    path = f"/disks/{added.document['id']}"
    assert curl("DELETE", path, "", "X-Ovirt-Expect: 202-accepted").status == 202
    until(lambda: curl("GET", path).status == 404, "the disk to be gone")


def test_a_disk_is_deleted(curl, domain, storage):
    """Version 3 answers that it will be, version 4 that it is."""
    body = """<disk><alias>d3</alias><provisioned_size>1</provisioned_size><storage_domains>
        <storage_domain><name>cinder2</name></storage_domain></storage_domains></disk>"""
    disk = is_ok(curl, curl("POST", "/disks", body).document["id"])
    deleted = curl("DELETE", f"/disks/{disk['id']}")
    if curl.dialect.three:
        assert deleted.status == 202
        until(lambda: curl("GET", f"/disks/{disk['id']}").status == 404, "the disk to be gone")
    else:
        assert deleted.status == 200
        assert curl("GET", f"/disks/{disk['id']}").status == 404
    assert storage.images() == {}


def test_faults(curl):
    cases = [
        ("POST", "/disks", "<disk><alias>d4</alias></disk>", 400, "provisioned_size"),
        ("POST", "/openstackvolumeproviders", "<openstack_volume_provider/>", 400, "name"),
        ("GET", f"/disks/{KEY_UUID}", "", 404, KEY_UUID),
        ("GET", "/nothing", "", 404, "nothing"),
        ("PATCH", "/disks", "", 405, "PATCH"),
    ]
    for method, path, body, status, word in cases:
        got = curl(method, path, body)
        assert (got.status, got.kind) == (status, curl.dialect.media), got
        assert got.document["reason"]
        assert word in got.document["detail"], got


def test_who_asks(engine, curl):
    url = f"{engine.root}{curl.dialect.prefix}/disks"
    nobody = subprocess.run(
        [*CURL, "--cacert", engine.ca, url],
        text=True,
        capture_output=True,
        check=True,
    )
    assert _read(nobody.stdout).status == 401
    assert "www-authenticate" in _read(nobody.stdout).headers


def test_a_token(engine):
    """As the page of the SSO has it: a token by password, the API with it, and its end."""
    curl = Curl(engine, DIALECTS[0])
    form = "Content-Type: application/x-www-form-urlencoded"
    named = {"username": ADMIN, "password": engine.password}
    fields = urlencode({"grant_type": "password", "scope": "ovirt-app-api", **named})
    sso = f"{engine.root}/ovirt-engine/sso/oauth/token"
    told = json.loads(curl.raw("POST", sso, fields, form, "Accept: application/json").body)
    assert (told["token_type"], "ovirt-app-api" in told["scope"]) == ("bearer", True)
    token = f"Authorization: Bearer {told['access_token']}"
    url = f"{engine.url}/datacenters"

    def ask():
        done = subprocess.run(
            [*CURL, "--cacert", engine.ca, "--config", "-", url],
            input=f'header = "{token}"',
            text=True,
            capture_output=True,
            check=True,
        )
        return _read(done.stdout).status

    assert ask() == 200
    logout = f"{engine.root}/ovirt-engine/services/sso-logout"
    ended = curl.raw("POST", logout, f"scope=&token={told['access_token']}", form)
    assert (ended.status, json.loads(ended.body)) == (200, {})
    assert ask() == 401
