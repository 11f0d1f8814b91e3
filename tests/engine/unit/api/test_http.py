# SPDX-License-Identifier: GPL-2.0-or-later
"""Statuses, headers and who asks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cinderengine.api.resources.serving import AT_ONCE
from cinderengine.api.types import dialects
from cinderengine.errors import Unavailable
from cinderengine.model.disks import Disk
from cinderengine.model.domains import StorageDomain
from cinderengine.model.providers import Provider
from cinderengine.store.entities import disks, providers, storage_domains
from tests.engine.unit.api.client import ADMIN, API, basic

GUEST = basic("guest@internal", "guest")
SSO = "/ovirt-engine/sso/oauth/token"


async def form(client, path, **fields):
    url = client.url + path
    async with client.session.post(url, data=fields) as answer:
        assert answer.headers["Content-Type"].startswith("application/json")
        return answer.status, await answer.json()


# Who asks


async def test_without_a_name_it_is_told_how_to_log_in(client) -> None:
    got = await client("GET", "", auth="")
    assert got.status == 401
    assert got.text("reason") == "Unauthorized"
    assert "nobody is logged in" in got.detail.lower()
    schemes = [value.split()[0] for value in got.headers.getall("WWW-Authenticate")]
    assert schemes == ["Basic", "Bearer"]


@pytest.mark.parametrize(
    "given",
    [
        "Basic",
        "Basic !!!",
        "Basic YWJj",
        "Basic /w==",
        "Digest x",
        "Bearer",
        "Bearer nobody",
        "Basic YWRtaW5AaW50ZXJuYWw6d3Jvbmc=",
        "Basic " + "A" * 6000,
    ],
)
async def test_a_wrong_login_is_refused(client, given) -> None:
    got = await client("GET", "", auth="", Authorization=given)
    assert got.status == 401
    assert "wrong" not in got.detail


async def test_others_than_administrators_are_refused(client) -> None:
    got = await client("GET", "/disks", auth=GUEST)
    assert got.status == 403
    assert "guest@internal is no administrator" in got.detail


async def test_a_token_for_a_password(client, engine) -> None:
    fields = {"grant_type": "password", "scope": "ovirt-app-api", "username": "admin@internal"}
    status, told = await form(client, SSO, **fields, password="pw")
    assert status == 200
    assert told["token_type"] == "bearer"
    assert told["scope"] == "ovirt-app-api"
    assert told["exp"] == "2000000000000"
    bearer = f"Bearer {told['access_token']}"
    assert (await client("GET", "", auth="", Authorization=bearer)).status == 200
    status, info = await form(client, f"{SSO}-info", token=told["access_token"])
    assert (status, info["user_id"], info["active"]) == (200, "admin@internal", True)
    status, ended = await form(
        client, "/ovirt-engine/services/sso-logout", scope="", token=told["access_token"]
    )
    assert (status, ended) == (200, {})
    assert (await client("GET", "", auth="", Authorization=bearer)).status == 401
    status, info = await form(client, f"{SSO}-info", token=told["access_token"])
    assert (status, info["error_code"]) == (400, "invalid_grant")


async def test_a_token_for_basic(client) -> None:
    url = f"{client.url}{SSO}-http-auth"
    fields = {"grant_type": "urn:ovirt:params:oauth:grant-type:http", "scope": "ovirt-app-api"}
    async with client.session.post(url, data=fields, headers={"Authorization": ADMIN}) as answer:
        assert answer.status == 200
        assert (await answer.json())["access_token"]
    async with client.session.post(url, data=fields) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert (await answer.json())["error_code"] == "access_denied"


@pytest.mark.parametrize(
    "fields, status, code",
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
        ({"username": "admin@internal", "password": "no"}, 401, "access_denied"),
        ({"username": "admin@internal", "password": "pw", "scope": "a\x01"}, 400, "invalid_scope"),
        ({"username": "a" * 20_000, "password": "b"}, 413, "invalid_request"),
    ],
)
async def test_no_token_is_given_without_a_reason_for_it(client, fields, status, code) -> None:
    got, told = await form(client, SSO, **fields)
    assert (got, told["error_code"]) == (status, code)
    assert told["error"]


async def test_a_session_of_version_3(client, engine) -> None:
    wants = {"Prefer": "persistent-auth", "Version": "3"}
    got = await client("GET", "", **wants)
    cookie = got.headers["Set-Cookie"]
    assert cookie.startswith("JSESSIONID=token-0;")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    # The client's jar sends it from now on.
    assert (await client("GET", "/disks", auth="", **wants)).status == 200
    before = engine.access.logins
    again = await client("GET", "/disks", **wants)
    assert again.status == 200
    assert "Set-Cookie" not in again.headers
    assert engine.access.logins == before
    # Without the header no page of another site gets anything.
    assert (await client("GET", "/disks", auth="")).status == 401
    last = await client("GET", "")
    assert 'JSESSIONID=""' in last.headers["Set-Cookie"]
    assert engine.access.open_tokens == {}


# Prefixes and documents


@pytest.mark.parametrize("prefix", [API, "/api", f"{API}/v3", f"{API}/v4", "/api/v3"])
async def test_the_root_has_links_below_the_prefix_that_was_asked_for(client, prefix) -> None:
    root = (await client("GET", prefix)).xml
    links = {link.get("rel"): link.get("href") for link in root.findall("link")}
    assert links["disks"] == f"{prefix}/disks"
    assert links["disks/search"] == f"{prefix}/disks?search={{query}}"
    if prefix.endswith("v3"):
        assert root.find("product_info/version").get("major") == "4"
        special = [link.get("rel") for link in root.findall("special_objects/link")]
        assert special == ["templates/blank", "tags/root"]
    else:
        assert root.findtext("product_info/version/major") == "4"
        assert root.find("special_objects/blank_template").get("href").startswith(prefix)


async def test_json_is_answered_to_who_likes_it_more(client) -> None:
    got = await client("GET", "/datacenters", Accept="application/json")
    assert [one["name"] for one in got.json["data_center"]] == ["Default"]
    fault = await client("GET", "/datacenters/none", Accept="application/json")
    assert fault.status == 404
    assert fault.json["reason"] == "Not Found"
    assert (await client("GET", "/datacenters", Accept="text/html")).status == 406


async def test_json_is_read_with_and_without_being_told_so(client) -> None:
    body = '{"name": "east", "description": "d"}'
    got = await client("POST", "/datacenters", body, Content_Type="application/json")
    assert got.status == 201
    assert got.text("description") == "d"
    refused = await client(
        "POST", "/datacenters", body, Content_Type="application/x-www-form-urlencoded"
    )
    assert refused.status == 415


# Methods


async def test_methods_that_are_not_there(client) -> None:
    got = await client("PUT", "/disks", "<disk/>")
    assert got.status == 405
    assert got.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert "can do GET, HEAD, OPTIONS, POST" in got.detail
    assert (await client("POST", "", "<api/>")).status == 405
    assert (await client("PATCH", "/disks")).status == 405
    assert (await client("GET", "/openstackvolumeproviders/x/testconnectivity")).status == 405


async def test_options_and_head(client) -> None:
    got = await client("OPTIONS", "/datacenters/x")
    assert (got.status, got.headers["Allow"]) == (200, "DELETE, GET, HEAD, OPTIONS, PUT")
    assert (await client("OPTIONS", "")).headers["Allow"] == "GET, HEAD, OPTIONS"
    got = await client("HEAD", "/datacenters")
    assert (got.status, got.body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/colours",
        "/disks/none",
        "/disks/none/permissions",
        "/disks/a/b/c",
        "/disks/%00",
        "/datacenters/none/storagedomains",
        "/" + "x/" * 20,
        "/disks/x;y=z/statistics",
    ],
)
async def test_what_is_not_there_is_told_in_a_fault(client, path) -> None:
    got = await client("GET", path)
    assert got.status == 404
    assert got.detail


# Bodies


async def test_a_body_that_is_too_long_is_refused(client) -> None:
    got = await client("POST", "/datacenters", "<data_center>" + " " * (1 << 20))
    assert got.status == 413
    assert "1048576 bytes" in got.detail


@pytest.mark.parametrize("path", [f"{API}/datacenters", SSO])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_encoded_as_it_says_is_refused(client, caplog, path, encoding):
    headers = {"Authorization": ADMIN, "Content-Encoding": encoding}
    url = client.url + path
    # Compressed already, as far as our client is concerned.
    async with client.session.post(url, data=b"abcde", headers=headers) as answer:
        assert answer.status == 400
    # It is no mistake of ours; what aiohttp itself says of it is its own.
    assert [one for one in caplog.records if one.name.startswith("cinderengine")] == []


async def test_no_body_and_what_is_none(client) -> None:
    assert (await client("POST", "/datacenters")).text("reason") == "Incomplete parameters"
    assert (await client("POST", "/datacenters", "<vm/>")).status == 400
    assert "name" in (await client("POST", "/datacenters", "<data_center/>")).detail


@pytest.mark.parametrize("expect", ["100-continue", "201-created", "202-accepted"])
async def test_what_a_client_expects_is_no_matter_of_http(client, expect) -> None:
    got = await client(
        "POST", "/datacenters", "<data_center><name>x</name></data_center>", Expect=expect
    )
    assert got.status == 201


# Faults


async def test_a_mistake_of_ours_is_a_fault_with_the_requests_id(client, engine, caplog) -> None:
    engine.volumes.fault = ZeroDivisionError("secret")
    body = (
        "<openstack_volume_provider><name>c</name><url>http://c</url></openstack_volume_provider>"
    )
    got = await client("POST", "/openstackvolumeproviders", body, Correlation_Id="abc-7")
    assert got.status == 500
    assert "secret" not in got.detail
    assert "abc-7" in got.detail
    assert "ZeroDivisionError" in caplog.text
    engine.volumes.fault = Unavailable("cinder c does not answer; see that it runs")
    got = await client("POST", "/openstackvolumeproviders", body)
    assert got.status == 503
    assert got.detail == "[Cinder c does not answer; see that it runs.]"
    assert (await client("GET", "/openstackvolumeproviders")).xml.findall("*") == []


async def test_the_correlation_id_comes_back_and_leads_to_events(client) -> None:
    got = await client(
        "POST",
        "/datacenters",
        "<data_center><name>x</name></data_center>",
        Correlation_Id="click-1",
    )
    assert got.headers["Correlation-Id"] == "click-1"
    events = await client("GET", "/events?search=correlation_id%3Dclick-1")
    assert events.text("event/correlation_id") == "click-1"
    assert (await client("GET", "/events", Correlation_Id="a b")).status == 400


async def test_what_is_not_known_is_ignored_and_logged(client, caplog) -> None:
    caplog.set_level("INFO")
    got = await client(
        "POST", "/datacenters", "<data_center><name>x</name><colour>crimson</colour></data_center>"
    )
    assert got.status == 201
    assert "data_center.colour" in caplog.text
    assert "crimson" not in caplog.text


async def test_requests_at_once(client) -> None:
    got = await asyncio.gather(*(client("GET", "/clusters") for _ in range(20)))
    assert {one.status for one in got} == {200}


async def test_others_are_served_while_a_long_list_is_written(client, engine, monkeypatch) -> None:
    def fill(conn) -> None:
        providers.insert(conn, Provider("p", "cinder", "http://c"))
        storage_domains.insert(conn, StorageDomain("s", "cinder", "p"))
        for n in range(3 * AT_ONCE):
            disks.insert(conn, Disk(f"d{n:04}", f"name {n}", "s", 1 << 30, f"d{n:04}"))

    await engine.parts.store.write(fill)
    loop_thread, written_in = threading.get_ident(), []
    writes = dialects.writes

    def noted(*arguments):
        written_in.append(threading.get_ident())
        return writes(*arguments)

    monkeypatch.setattr(dialects, "writes", noted)
    assert len((await client("GET", "/disks")).xml) == 3 * AT_ONCE
    assert len((await client("GET", "/disks?max=2")).xml) == 2
    found = await client("GET", "/disks?search=name%3D*5%20and%20status%3Dlocked&max=3")
    assert [one.findtext("name") for one in found.xml] == ["name 5", "name 15", "name 25"]
    assert written_in[0] != loop_thread
    assert written_in[1:] == [loop_thread, loop_thread]
