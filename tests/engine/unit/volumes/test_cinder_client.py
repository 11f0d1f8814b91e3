# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands where a Cinder should, and tokens that end; the real ones are in the lab."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading

import pytest

from cinderengine.errors import EngineError, Incomplete, Invalid, Unavailable
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.volumes.cinder import CinderVolumes
from cinderengine.volumes.cinder_client import CinderClient
from cinderengine.volumes.service import GIB, KEY
from tests.engine.unit.volumes.servers import (
    TOKEN_PATH,
    VERSIONS,
    Answer,
    self_signed,
    serving,
    token,
)

PASSWORD = "correct-horse-battery"
NO_AUTH = {"project": "abc"}
WITH_AUTH = {"project": "p", "username": "u", "requires_authentication": True}


@contextlib.asynccontextmanager
async def opened(url, timeout_s=5.0, **fields):
    provider = Provider(id="1", name="cinder", url=url, **(fields or NO_AUTH))
    service = CinderVolumes(CinderClient(provider, Secret(PASSWORD), timeout_s))
    try:
        yield service
    finally:
        await service.close()


@contextlib.contextmanager
def refused(kind, *words):
    with pytest.raises(EngineError) as caught:
        yield
    detail = caught.value.detail
    assert type(caught.value) is kind, detail
    assert [word for word in words if word not in detail] == [], detail
    assert "\n" not in detail and detail.endswith("."), detail
    assert PASSWORD not in detail


async def check(url, **fields):
    async with opened(url, **fields) as service:
        await service.check()


NOVA = {
    "versions": [{"id": "v2.1", "media-types": [{"type": "application/vnd.openstack.compute"}]}]
}
OLD = {"versions": [{"id": "v2.0", "media-types": [{"type": "x.openstack.volume+json;version=2"}]}]}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(200, "<html>Hello</html>"), Invalid, "a page of HTML"),
        (Answer(404, "<html>Not found</html>"), Invalid, "no Cinder API"),
        (Answer(404, {"error": "none"}), Invalid, "no Cinder API"),
        (Answer(500, "<html>Oops</html>"), Unavailable, "HTTP status 500"),
        (Answer(503, {"fault": {"message": "Down\nfor now"}}), Unavailable, "Down for now"),
        (Answer(300, OLD), Invalid, "v2.0"),
        (Answer(300, NOVA), Invalid, "another service"),
        (Answer(300, {"versions": {"values": []}}), Invalid, "another service"),
        (Answer(200, ["a", "list"]), Invalid, "no Cinder API"),
        (Answer(301, None, {"Location": "https://c:1/x"}), Invalid, "leads on to https://c:1/x"),
    ],
)
async def test_what_stands_where_cinder_should(answer, kind, words):
    with serving(lambda _: answer) as server, refused(kind, server.url, words):
        await check(server.url)


async def test_what_does_not_speak_http():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet():
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")
                connection.recv(4096)

        greeting = [threading.Thread(target=greet) for _ in range(2)]
        for thread in greeting:
            thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with refused(Invalid, url, "does not speak HTTP"):
                await check(url)
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for thread in greeting:
                thread.join()


async def test_what_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with refused(Unavailable, url, "did not answer within 0.3 s"):
            await check(url, timeout_s=0.3, **NO_AUTH)


async def test_a_certificate_that_nobody_trusts(tmp_path):
    certificate = self_signed(tmp_path)
    with serving(lambda _: Answer(300, VERSIONS), certificate) as server:
        url = server.url
        with refused(Invalid, url, "certificate", "self-signed"):
            await check(url)


async def test_a_certificate_for_another_name(tmp_path, monkeypatch):
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    with serving(lambda _: Answer(300, VERSIONS), certificate) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with refused(Invalid, url, "match", "name that is in its certificate"):
            await check(url)


async def test_a_certificate_that_this_machine_trusts(tmp_path, monkeypatch):
    def answer(request):
        return Answer(300, VERSIONS) if request.path == "/" else Answer(200, {"volumes": []})

    with serving(answer, self_signed(tmp_path)) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        await check(server.url)


async def test_a_root_that_tells_nothing():
    """As where only /v3 is passed on."""

    def answer(request):
        match request.path:
            case "/v3/":
                return Answer(200, VERSIONS)
            case "/":
                return Answer(404, "<html>nothing</html>")
        return Answer(200, {"volumes": []})

    with serving(answer) as server:
        await check(server.url)
        assert server.paths()[-1] == "GET /v3/abc/volumes?limit=1"


async def test_html_in_the_middle():
    def answer(request):
        return Answer(300, VERSIONS) if request.path == "/" else Answer(200, "<html>log in</html>")

    with serving(answer) as server, refused(Invalid, server.url, "text/html", "not Cinder's API"):
        await check(server.url)


class Cloud:
    """A Keystone and a Cinder on one port, with tokens that are taken so many times."""

    def __init__(self, uses=100, **fields):
        self.uses = uses
        self.fields = fields
        self.given = 0
        self.left = 0

    def __call__(self, request):
        url = f"http://{request.headers['Host']}"
        if request.path == "/":
            return Answer(300, VERSIONS)
        if request.path == TOKEN_PATH:
            if PASSWORD not in str(request.body):
                return Answer(401, {"error": {"message": "no"}})
            self.given, self.left = self.given + 1, self.uses
            return token(f"token-{self.given}", url, **self.fields)
        if request.headers.get("X-Auth-Token") != f"token-{self.given}" or not self.left:
            challenge = {"WWW-Authenticate": f'Keystone uri="{url}/identity"'}
            return Answer(401, {"error": {"message": "Unauthorized"}}, challenge)
        self.left -= 1
        return Answer(200, {"volumes": []})


async def test_cinder_names_its_keystone():
    with serving(Cloud()) as server:
        await check(server.url, **WITH_AUTH)


async def test_a_token_that_ends_in_the_middle():
    """Another one is had, once, and nobody notices."""
    cloud = Cloud(uses=2)
    with serving(cloud) as server:
        async with opened(server.url, **WITH_AUTH) as service:
            for _ in range(5):
                assert await service.volumes() == []
    assert cloud.given == 3


async def test_tokens_that_cinder_never_takes():
    cloud = Cloud(uses=0)
    with serving(cloud) as server, refused(Invalid, server.url, "does not accept a token"):
        await check(server.url, **WITH_AUTH)
    assert cloud.given == 2


async def test_a_cinder_with_a_keystone_that_is_not_asked():
    with serving(Cloud()) as server, refused(Invalid, server.url, "require authentication"):
        await check(server.url)


async def test_a_region_that_has_no_cinder():
    with serving(Cloud(region="East")) as server:
        await check(server.url, region="East", **WITH_AUTH)
        with refused(Invalid, "West", "East"):
            await check(server.url, region="West", **WITH_AUTH)


async def test_a_project_that_is_not_that_of_the_url():
    with serving(Cloud()) as server:
        await check(f"{server.url}/v3/{'0' * 32}", **WITH_AUTH)
        with refused(Invalid, "/v3/feed", "0" * 32):
            await check(f"{server.url}/v3/feed", **WITH_AUTH)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "needs a project"),
        ({"requires_authentication": True, "project": "p"}, "user and a password"),
        ({"requires_authentication": True, "username": "u"}, "needs a project to log in"),
    ],
)
async def test_what_is_missing(fields, words):
    with serving(lambda _: Answer(300, VERSIONS)) as server, refused(Incomplete, words):
        await check(server.url, username=fields.pop("username", ""), **fields)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(404, "<html>x</html>"), Invalid, "no Keystone with version 3"),
        (Answer(200, "<html>x</html>"), Invalid, "no Keystone with version 3"),
        (Answer(500, {"error": {"message": "oops"}}), Unavailable, "failed with HTTP status 500"),
        (Answer(401, {"error": {"message": "no"}}), Invalid, "does not let user u into project p"),
    ],
)
async def test_what_stands_where_keystone_should(answer, kind, words, caplog):
    def answering(request):
        return Answer(300, VERSIONS) if request.path == "/" else answer

    with serving(answering) as server, caplog.at_level(logging.DEBUG):
        keystone = f"{server.url}/identity"
        with refused(kind, f"{keystone}/v3", words):
            await check(server.url, authentication_url=keystone, **WITH_AUTH)
    assert PASSWORD not in caplog.text


async def test_no_secret_is_logged(caplog):
    with serving(Cloud(uses=2)) as server, caplog.at_level(logging.DEBUG):
        async with opened(server.url, **WITH_AUTH) as service:
            for _ in range(3):
                await service.volumes()
    assert "/identity/v3/auth/tokens" in caplog.text
    assert PASSWORD not in caplog.text
    assert "token-1" not in caplog.text


def volume(volume_id, key=None):
    about = {"id": volume_id, "name": "disk", "size": 1, "status": "available"}
    return {**about, "metadata": {KEY: key} if key else {}}


async def test_a_filter_that_cinder_refuses():
    """The volume is found in the list of all, then."""

    def answer(request):
        if request.path == "/":
            return Answer(300, VERSIONS)
        if "metadata" in request.path:
            return Answer(400, {"badRequest": {"message": "Invalid filters metadata"}})
        return Answer(200, {"volumes": [volume("1", "other"), volume("2", "ours")]})

    with serving(answer) as server:
        async with opened(server.url) as service:
            assert (await service.find("ours")).id == "2"


async def test_a_filter_that_cinder_leaves_out():
    def answer(request):
        if request.path == "/":
            return Answer(300, VERSIONS)
        return Answer(200, {"volumes": [volume("1", "other"), volume("2")]})

    with serving(answer) as server:
        async with opened(server.url) as service:
            assert await service.find("ours") is None


async def test_a_page_whose_beginning_has_gone():
    """The list is begun anew; what came before is not told of twice."""
    gone = []

    def answer(request):
        more = {"volumes_links": [{"rel": "next", "href": "http://elsewhere"}]}
        if request.path == "/":
            return Answer(300, VERSIONS)
        if "marker=2" in request.path and not gone:
            gone.append("2")
            return Answer(404, {"itemNotFound": {"message": "Volume 2 could not be found."}})
        if "marker=" in request.path:
            return Answer(200, {"volumes": [volume("3")]})
        first = [volume("1"), *([] if gone else [volume("2")])]
        return Answer(200, {"volumes": first, **more})

    with serving(answer) as server:
        async with opened(server.url) as service:
            assert [v.id for v in await service.volumes()] == ["1", "3"]


async def test_ten_thousand_volumes():
    """As many as ten pages; in which order they come does not matter."""

    def answer(request):
        if request.path == "/":
            return Answer(300, VERSIONS)
        marker = int(request.path.partition("marker=")[2] or -1)
        page = [volume(str(n)) for n in range(marker + 1, marker + 1001)]
        more = {"volumes_links": [{"rel": "next"}]} if marker + 1001 < 10_000 else {}
        return Answer(200, {"volumes": page, **more})

    with serving(answer) as server:
        async with opened(server.url) as service:
            volumes = await service.volumes()
    assert len({v.id for v in volumes}) == 10_000
    assert sum(v.size_bytes for v in volumes) == 10_000 * GIB
    assert len(server.asked) == 11


async def test_a_volume_that_is_being_deleted_is_left_alone():
    def answer(request):
        if request.path == "/":
            return Answer(300, VERSIONS)
        if request.method == "DELETE":
            return Answer(400, {"badRequest": {"message": "it must be available"}})
        return Answer(200, {"volume": {**volume("1"), "status": "deleting"}})

    with serving(answer) as server:
        async with opened(server.url) as service:
            await service.delete("1")
        assert "DELETE" not in " ".join(server.paths())


async def test_one_that_goes_while_it_is_deleted():
    def answer(request):
        if request.path == "/":
            return Answer(300, VERSIONS)
        if request.method == "DELETE":
            return Answer(404, {"itemNotFound": {"message": "no volume"}})
        return Answer(200, {"volume": volume("1")})

    with serving(answer) as server:
        async with opened(server.url) as service:
            await service.delete("1")
