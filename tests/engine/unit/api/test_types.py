# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of types, and the dialects that are read and written by it."""

from __future__ import annotations

import json as plain_json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from cinderengine.api.types import json, xml
from cinderengine.api.types.entity import Entity, Link, Many, entity, reference
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Kind, Version
from cinderengine.api.types.values import LATEST_MS
from cinderengine.errors import EngineError, Invalid
from tests.engine.unit.api.samples import HIDDEN, full, without_secrets

DIALECTS = [(dialect, version) for dialect in (xml, json) for version in Version]
BOTH = pytest.mark.parametrize(
    "dialect, version",
    DIALECTS,
    ids=[f"{dialect.__name__.rpartition('.')[2]}{version}" for dialect, version in DIALECTS],
)
BASE = "/ovirt-engine/api"


def elements(body: bytes) -> str:
    """A document without its declaration."""
    return etree.tostring(etree.fromstring(body), encoding="unicode")


def read(text: str | bytes, kind: str, version: Version = Version.V4) -> Entity:
    body = text.encode() if isinstance(text, str) else text
    return xml.reads(body, TYPES[kind], version).entity


def refusal(text: str | bytes, kind: str) -> str:
    dialect = json if text[:1] in ("{", b"{", "[") else xml
    body = text.encode() if isinstance(text, str) else text
    with pytest.raises(Invalid) as e:
        dialect.reads(body, TYPES[kind], Version.V4)
    return e.value.detail


# The table


def test_all_that_fields_hold_are_types() -> None:
    assert {
        field.of for declared in TYPES.values() for field in declared.fields if field.of
    } <= set(TYPES)


def test_what_documents_call_a_field_stands_for_one_alone() -> None:
    for declared in TYPES.values():
        for version in Version:
            names = [field.named(version) for field in declared.fields]
            names += [field.echo for field in declared.fields if field.echo]
            assert len(names) == len(set(names)), declared.name


def test_words_are_lower_case_as_they_are_compared() -> None:
    words = [word for declared in TYPES.values() for f in declared.fields for word in f.words]
    assert words == [word.lower() for word in words]


@BOTH
@pytest.mark.parametrize("name", TYPES)
def test_what_is_written_is_read_back(dialect, version, name) -> None:
    written = full(TYPES[name])
    body = dialect.writes(written, version, "")
    document = dialect.reads(body, TYPES[name], version)
    assert document.entity == without_secrets(written)
    assert document.ignored == []


@BOTH
def test_secrets_are_read_and_never_written(dialect, version) -> None:
    for declared in TYPES.values():
        assert HIDDEN not in dialect.writes(full(declared), version, "").decode()
    key = read(
        "<openstack_volume_authentication_key><value>YQo=</value>"
        "</openstack_volume_authentication_key>",
        "openstack_volume_authentication_key",
    )
    assert key.text("value") == "YQo="


# Versions


def test_versions_differ_as_oVirt_has_them() -> None:
    disk = entity("disk", id="d1", href="/disks/d1", status="ok", provisioned_size=5)
    assert elements(xml.writes(disk, Version.V4, BASE)) == (
        '<disk href="/ovirt-engine/api/disks/d1" id="d1">'
        "<provisioned_size>5</provisioned_size><status>ok</status></disk>"
    )
    assert elements(xml.writes(disk, Version.V3, "/api")) == (
        '<disk href="/api/disks/d1" id="d1"><provisioned_size>5</provisioned_size><size>5</size>'
        "<status><state>ok</state></status></disk>"
    )
    center = entity("data_center", version=entity("version", major=4, minor=3))
    assert "<version><major>4</major><minor>3</minor></version>" in elements(
        xml.writes(center, Version.V4, "")
    )
    assert '<version major="4" minor="3"/>' in elements(xml.writes(center, Version.V3, ""))


def test_volume_types_have_another_name_at_the_top_in_version_4() -> None:
    kind = entity("openstack_volume_type", id="t", name="my_ceph")
    many = Many(TYPES["openstack_volume_type"], [kind])
    assert elements(xml.writes(many, Version.V4, BASE)) == (
        '<open_stack_volume_types><open_stack_volume_type id="t"><name>my_ceph</name>'
        "</open_stack_volume_type></open_stack_volume_types>"
    )
    assert elements(xml.writes(many, Version.V3, BASE)) == (
        '<openstack_volume_types><openstack_volume_type id="t"><name>my_ceph</name>'
        "</openstack_volume_type></openstack_volume_types>"
    )
    inside = xml.writes(entity("disk", openstack_volume_type=kind), Version.V4, BASE)
    assert "<openstack_volume_type id=" in elements(inside)


def test_a_version_3_size_is_read_in_either_version() -> None:
    for version in Version:
        assert read("<disk><size>7</size></disk>", "disk", version).number("provisioned_size") == 7


# JSON as oVirt has it


def test_json_has_strings_links_and_one_of_a_collection() -> None:
    disk = entity(
        "disk",
        id="d1",
        href="/disks/d1",
        links=(Link("permissions", "/disks/d1/permissions"),),
        actions=(Link("copy", "/disks/d1/copy"),),
        provisioned_size=5,
        shareable=False,
        storage_domains=(entity("storage_domain", id="s1"),),
    )
    written = plain_json.loads(json.writes(Many(TYPES["disk"], [disk]), Version.V4, BASE))
    assert written == {
        "disk": [
            {
                "provisioned_size": "5",
                "shareable": "false",
                "storage_domains": {"storage_domain": [{"id": "s1"}]},
                "actions": {"link": [{"href": f"{BASE}/disks/d1/copy", "rel": "copy"}]},
                "link": [{"href": f"{BASE}/disks/d1/permissions", "rel": "permissions"}],
                "href": f"{BASE}/disks/d1",
                "id": "d1",
            }
        ]
    }
    assert json.writes(Many(TYPES["disk"], []), Version.V4, BASE) == b"{}"


@pytest.mark.parametrize("version", Version)
def test_times_are_milliseconds_in_json(version) -> None:
    key, at_ms = "openstack_volume_authentication_key", 1_433_075_305_525
    written = json.writes(entity(key, creation_date=at_ms), version, BASE)
    assert plain_json.loads(written) == {"creation_date": at_ms}
    assert json.reads(written, TYPES[key], version).entity.number("creation_date") == at_ms
    text = b'{"creation_date": "2015-05-31T15:28:25.525+03:00"}'
    assert json.reads(text, TYPES[key], version).entity.number("creation_date") == at_ms
    for never in (LATEST_MS + 1, -1, True):
        assert "creation_date" in refusal(plain_json.dumps({"creation_date": never}), key)


def test_json_numbers_booleans_and_lists_are_read_as_people_write_them() -> None:
    body = b'{"provisioned_size": 1073741824, "shareable": true, "storage_domains": [{"id": "s"}]}'
    disk = json.reads(body, TYPES["disk"], Version.V4).entity
    assert disk.number("provisioned_size") == 1 << 30
    assert disk.flag("shareable") is True
    assert [domain.id for domain in disk.many("storage_domains")] == ["s"]
    body = b'{"storage_domains": {"storage_domain": {"id": "s"}}, "status": {"state": "ok"}}'
    disk = json.reads(body, TYPES["disk"], Version.V3).entity
    assert [domain.id for domain in disk.many("storage_domains")] == ["s"]
    assert disk.text("status") == "ok"


# What cannot be read


def test_a_wrong_value_is_told_with_field_value_and_what_is_expected() -> None:
    assert refusal("<disk><provisioned_size>1G</provisioned_size></disk>", "disk") == (
        "Field provisioned_size of disk has a value '1G' that cannot be read: "
        "give a whole number from -9223372036854775807 to 9223372036854775807."
    )
    assert refusal('{"format": "qcow2"}', "disk") == (
        "Field format of disk has a value 'qcow2' that cannot be read: give one of cow, raw."
    )
    assert "'maybe' that cannot be read: give true or false" in refusal(
        "<disk><shareable>maybe</shareable></disk>", "disk"
    )
    assert "'yesterday' that cannot be read: give a time as ISO 8601" in refusal(
        '{"time": "yesterday"}', "event"
    )
    assert "'<b>' that cannot be read: give text" in refusal(
        "<disk><alias><b/></alias></disk>", "disk"
    )
    assert "a value '5' that cannot be read: give an object" in refusal('{"quota": 5}', "disk")
    assert "give a list" in refusal('{"storage_domains": [5]}', "disk")
    assert "give text" in refusal('{"alias": {"a": 1}}', "disk")


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_XML_cannot_carry_is_refused_in_JSON(text: str) -> None:
    assert "text without control characters" in refusal(plain_json.dumps({"alias": text}), "disk")


def test_where_secrets_are_sent_no_value_is_repeated() -> None:
    told = refusal('{"usage_type": "AQDsecret=="}', "openstack_volume_authentication_key")
    assert "AQD" not in told
    assert "usage_type" in told
    assert "ceph" in told


@pytest.mark.parametrize(
    "body, words",
    [
        ("", "The body is not XML"),
        ("<disk>", "The body is not XML"),
        ("<vm/>", "The body is a <vm>; send a <disk>."),
        (
            '<!DOCTYPE disk [<!ENTITY e SYSTEM "file:///etc/passwd">]><disk><alias>&e;</alias></disk>',
            "The body has a document type",
        ),
        ('<?xml version="1.0" encoding="no-such"?><disk/>', "The body is not XML"),
        ("[]", "The body is no object"),
        ("{", "The body is not JSON"),
        ("{" + '"a":{' * 100_000, "The body is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "The body is not JSON"),
        ('{"id": "\\u0000"}', "The id of disk is not one"),
        (f'<disk id="{"x" * 300}"/>', "The id of disk is not one"),
        (
            "<disk>" + "<quota><data_center><clusters><cluster><data_center><quotas><quota>" * 10,
            "The body is not XML",
        ),
    ],
    ids=range(12),
)
def test_what_is_no_document_is_told_so(body: str, words: str) -> None:
    assert words in refusal(body, "disk")


def test_objects_in_one_another_have_an_end() -> None:
    inside = "{}"
    for _ in range(30):
        inside = f'{{"parent": {inside}}}'
    assert "20 deep" in refusal(inside, "tag")


def test_lists_have_an_end() -> None:
    many = "<storage_domain/>" * 1001
    told = refusal(f"<disk><storage_domains>{many}</storage_domains></disk>", "disk")
    assert told == "Field storage_domains of disk has more than 1000 members."


def test_what_no_type_knows_is_ignored_and_named() -> None:
    body = b"<disk><colour>red</colour><quota><size>1</size></quota><actions/><link/></disk>"
    assert xml.reads(body, TYPES["disk"], Version.V4).ignored == ["disk.colour", "disk.quota.size"]
    body = b'{"colour": "red", "quota": {"size": 1}, "actions": {}}'
    assert json.reads(body, TYPES["disk"], Version.V4).ignored == ["disk.colour", "disk.quota.size"]


def test_what_was_sent_with_an_empty_name_is_read_as_empty() -> None:
    assert read("<disk><description/></disk>", "disk").text("description") == ""


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "alias",
                    "status",
                    "state",
                    "quota",
                    "storage_domains",
                    "storage_domain",
                    "id",
                    "href",
                    "provisioned_size",
                    "shareable",
                    "link",
                    "actions",
                    "format",
                    "statistics",
                    "values",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JUNK, st.sampled_from(sorted(TYPES)), st.sampled_from(list(Version)))
def test_any_json_is_read_or_refused_and_can_be_written(given_, name, version) -> None:
    try:
        entity_ = json.reads(plain_json.dumps(given_).encode(), TYPES[name], version).entity
    except EngineError:
        return
    for dialect in (xml, json):
        assert dialect.writes(entity_, version, "")


NAMES = sorted({field.name for declared in TYPES.values() for field in declared.fields})
ELEMENTS = st.recursive(
    st.text(alphabet="a5<&;\x00\u00e9 -.T:", max_size=6).map(
        lambda text: text.replace("<", "&lt;") if len(text) % 2 else text
    ),
    lambda inner: st.tuples(st.sampled_from(NAMES), st.lists(inner, max_size=3)).map(
        lambda pair: f"<{pair[0]}>{''.join(pair[1])}</{pair[0]}>"
    ),
    max_leaves=8,
)


@given(ELEMENTS, st.sampled_from(sorted(TYPES)), st.sampled_from(list(Version)))
def test_any_xml_is_read_or_refused_and_can_be_written(inside, name, version) -> None:
    try:
        entity_ = xml.reads(f"<{name}>{inside}</{name}>".encode(), TYPES[name], version).entity
    except EngineError:
        return
    for dialect in (xml, json):
        assert dialect.writes(entity_, version, "")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body) -> None:
    for dialect in (xml, json):
        for version in Version:
            try:
                dialect.reads(body, TYPES["disk"], version)
            except EngineError as e:
                assert e.status == 400


# Our own mistakes


def test_a_field_that_no_type_has_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        entity("disk", colour="red")
    with pytest.raises(TypeError):
        entity("disk", alias=5)


def test_a_reference_to_nothing_is_none() -> None:
    assert reference("data_center", None, "/datacenters") is None
    assert reference("data_center", "d", "/datacenters").href == "/datacenters/d"


def test_what_XML_cannot_carry_is_written_as_something_else() -> None:
    body = xml.writes(entity("disk", alias="a\x00\x1bb"), Version.V4, "")
    assert read(body, "disk").text("alias") == "a\ufffd\ufffdb"


def test_every_kind_is_tried() -> None:
    assert {field.kind for declared in TYPES.values() for field in declared.fields} == set(Kind)
