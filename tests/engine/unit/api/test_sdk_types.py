# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of types against oVirt's own client for version 4: its readers and its writers."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import pytest
from ovirtsdk4 import readers, types, writers  # noqa: F401  they register themselves
from ovirtsdk4.reader import Reader
from ovirtsdk4.writer import Writer

from cinderengine.api.types import xml
from cinderengine.api.types.entity import Entity, Many, entity, filled
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Kind, Version
from tests.engine.unit.api.samples import full

# Python's own words have an underscore behind them there.
RENAMED = {"import": "import_", "async": "async_"}
# Types that are no document of their own, so that the client reads them inside of others alone.
INSIDE = {
    *("api_summary", "api_summary_item", "creation", "cpu_topology", "template_version"),
    *("operating_system", "special_objects"),
}
# Fields that version 4 does not have, by type: those of version 3, and what an operator is told.
OURS = {
    ("openstack_volume_provider", "user_domain_name"),
    ("openstack_volume_provider", "project_name"),
    ("openstack_volume_provider", "project_domain_name"),
    ("storage_domain", "destroy"),
    ("storage_domain", "format"),
    ("storage_domain", "status_detail"),
    ("disk", "status_detail"),
    ("disk_snapshot", "status_detail"),
}
KNOWN = sorted(
    name
    for name, declared in TYPES.items()
    if declared.top(Version.V4) in Reader._readers and name not in INSIDE
)


def type_name(kind: str) -> str:
    return kind.replace("_", "")


def sent_by_client(entity_: Entity) -> Any:
    return Reader.read(xml.writes(entity_, Version.V4, "/ovirt-engine/api"))


def id_of(obj: object) -> object:
    """None where the client has none for what is a part of something else."""
    return getattr(obj, "id", None)


def attribute(obj: object, name: str) -> Any:
    return getattr(obj, RENAMED.get(name, name))


def test_the_client_knows_nearly_all_of_our_types() -> None:
    assert set(TYPES) - set(KNOWN) - INSIDE == set()


@pytest.mark.parametrize("name", KNOWN)
def test_the_client_reads_each_field(name: str) -> None:
    written = full(TYPES[name], depth=1)
    read = sent_by_client(written)
    assert id_of(read) in {written.id, None}
    assert read.href == f"/ovirt-engine/api{written.href}"
    for field in written.type.fields:
        if field.secret or (name, field.name) in OURS:
            continue
        value, found = written.values[field.name], attribute(read, field.name)
        match field.kind:
            case Kind.ONE:
                assert id_of(found) in {value.id, None}, field.name
                assert type(found).__name__.lower() == type_name(field.of)
            case Kind.MANY:
                assert len(found) == 2, field.name
                assert type(found[0]).__name__.lower() == type_name(field.of)
            case Kind.ENUM if isinstance(found, enum.Enum):
                assert found.value == value
            case Kind.ENUM:
                # A word of the sample that the client does not know, or a field of plain text.
                assert found in {None, value}
            case Kind.DATE:
                assert found.timestamp() * 1000 == value
            case _:
                assert found == value, field.name


@pytest.mark.parametrize("name", KNOWN)
def test_the_client_knows_each_word(name: str) -> None:
    for field in TYPES[name].fields:
        for word in field.words:
            read = attribute(sent_by_client(filled(name, {field.name: word})), field.name)
            assert read.value == word


def test_fields_of_ours_are_none_of_the_clients() -> None:
    for name, field in OURS:
        assert not hasattr(sent_by_client(entity(name)), RENAMED.get(field, field))


@pytest.mark.parametrize("name", sorted(set(KNOWN) - {"api"}))
def test_the_client_reads_collections(name: str) -> None:
    many = Many(TYPES[name], [entity(name, id="1"), entity(name, id="2")], href="/here")
    read = Reader.read(xml.writes(many, Version.V4, "/api"))
    assert [id_of(one) for one in read] in (["1", "2"], [None, None])
    assert Reader.read(xml.writes(Many(TYPES[name], []), Version.V4, "/api")) == []


def written_by_client(obj: object, kind: str) -> Entity:
    body = Writer.write(obj, indent=True)
    document = xml.reads(body.encode(), TYPES[kind], Version.V4)
    assert document.ignored == []
    return document.entity


def test_what_the_client_writes_is_read() -> None:
    disk = written_by_client(
        types.Disk(
            alias="d1",
            format=types.DiskFormat.RAW,
            provisioned_size=1 << 30,
            storage_type=types.DiskStorageType.CINDER,
            openstack_volume_type=types.OpenStackVolumeType(name="my_ceph"),
            storage_domains=[types.StorageDomain(name="cinder")],
            shareable=True,
        ),
        "disk",
    )
    assert disk.text("alias") == "d1"
    assert disk.text("format") == "raw"
    assert disk.number("provisioned_size") == 1 << 30
    assert disk.one("openstack_volume_type").text("name") == "my_ceph"
    assert [domain.text("name") for domain in disk.many("storage_domains")] == ["cinder"]
    assert disk.flag("shareable") is True
    key = written_by_client(
        types.OpenstackVolumeAuthenticationKey(
            uuid="0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2",
            value="YQo=",
            usage_type=types.OpenstackVolumeAuthenticationKeyUsageType.CEPH,
            creation_date=datetime.datetime(2015, 5, 31, 12, 28, 25, tzinfo=datetime.UTC),
        ),
        "openstack_volume_authentication_key",
    )
    assert key.text("value") == "YQo="
    assert key.number("creation_date") == 1_433_075_305_000
    action = written_by_client(types.Action(async_=True, force=False), "action")
    assert action.flag("async") is True
    assert action.flag("force") is False
    host = written_by_client(types.Host(name="h", address="10.0.0.1", root_password="x"), "host")
    assert host.text("root_password") == "x"


def test_a_fault_is_read_by_the_client() -> None:
    read = sent_by_client(entity("fault", reason="Operation Failed", detail="[Why.]"))
    assert (read.reason, read.detail) == ("Operation Failed", "[Why.]")
