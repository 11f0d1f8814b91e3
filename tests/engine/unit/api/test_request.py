# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read out of a request's target and headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderengine.api.request import Request, Waits, answer_media, body_media, request
from cinderengine.api.types.schema import Media, Version
from cinderengine.errors import EngineError, Invalid

API = "/ovirt-engine/api"


def asked(path: str, query: str = "", method: str = "GET", **headers: str) -> Request:
    return request(method, path, query, {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize(
    "path, base, version, segments",
    [
        (API, API, Version.V4, ()),
        (f"{API}/", API, Version.V4, ()),
        ("/api", "/api", Version.V4, ()),
        ("/api;max=3", "/api", Version.V4, ()),
        (f"{API}/disks", API, Version.V4, ("disks",)),
        (f"{API}/v3/disks/d1/", f"{API}/v3", Version.V3, ("disks", "d1")),
        ("/api/v4/disks", "/api/v4", Version.V4, ("disks",)),
        (f"{API}/disks/a%2Fb%3Bc", API, Version.V4, ("disks", "a/b;c")),
        (f"{API}//disks", API, Version.V4, ("disks",)),
    ],
)
def test_hrefs_are_below_what_was_asked_for(path, base, version, segments) -> None:
    read = asked(path)
    assert (read.base, read.version, read.segments) == (base, version, segments)


def test_the_prefix_has_the_last_word_on_the_version() -> None:
    assert asked(f"{API}/disks", version="3").version is Version.V3
    assert asked(f"{API}/v4/disks", version="3").version is Version.V4


@pytest.mark.parametrize("path, headers", [(API, {"version": "5"}), (f"{API}/v2/disks", {})])
def test_a_version_that_is_not_served_is_refused(path, headers) -> None:
    with pytest.raises(Invalid) as e:
        asked(path, **headers)
    assert "ask for 3 or 4" in e.value.detail


@pytest.mark.parametrize("path", ["/", "/apis", "/ovirt-engine/apix/disks", "/x/api"])
def test_elsewhere_is_nothing(path) -> None:
    with pytest.raises(EngineError) as e:
        asked(path)
    assert e.value.status == 404


def test_parameters_stand_in_the_query_or_in_the_path() -> None:
    read = asked(f"{API}/storagedomains/s/disks;unregistered=True;case_sensitive=False", "max=7")
    assert read.segments == ("storagedomains", "s", "disks")
    assert read.flag("unregistered")
    assert not read.flag("case_sensitive", default=True)
    assert read.number("max") == 7
    assert asked(f"{API}/disks;max=1", "max=2").number("max") == 2


@pytest.mark.parametrize(
    "value, is_true",
    [
        ("", True),
        ("true", True),
        ("TRUE", True),
        ("Yes", True),
        ("1", True),
        ("false", False),
        ("No", False),
        ("0", False),
        ("maybe", None),
    ],
)
@pytest.mark.parametrize("default", [True, False])
def test_booleans(value, is_true, default) -> None:
    wanted = default if is_true is None else is_true
    assert (
        asked(f"{API}/disks", f"unregistered={value}").flag("unregistered", default=default)
        is wanted
    )
    path = f"{API}/disks;unregistered" + (f"={value}" if value else "")
    assert asked(path).flag("unregistered", default=default) is wanted


@pytest.mark.parametrize("value", ["", "-1", "x", "1e3", "9" * 30])
def test_a_number_that_is_none_is_as_if_it_were_missing(value) -> None:
    assert asked(f"{API}/disks", f"max={value}").number("max") is None


@pytest.mark.parametrize(
    "accept, media",
    [
        ("", Media.XML),
        ("*/*", Media.XML),
        ("application/json", Media.JSON),
        ("application/xml; detail=statistics", Media.XML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Media.XML),
        ("application/xml;q=0.5, application/json", Media.JSON),
        ("application/json;q=0, application/xml;q=0.1", Media.XML),
        ("Application/JSON", Media.JSON),
    ],
)
def test_the_answer_is_what_the_client_likes_more(accept, media) -> None:
    assert answer_media(accept) is media


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=1", "application/json;q=0", ",;,"])
def test_what_cannot_be_answered_is_refused(accept) -> None:
    with pytest.raises(EngineError) as e:
        answer_media(accept)
    assert e.value.status == 406


def test_bodies() -> None:
    assert body_media("", b"<disk/>") is Media.XML
    assert body_media("", b" {}") is Media.JSON
    assert body_media("", b"") is Media.XML
    assert body_media("application/xml; charset=UTF-8", b"{}") is Media.XML
    assert body_media("application/json", b"<disk/>") is Media.JSON
    with pytest.raises(EngineError) as e:
        body_media("application/x-www-form-urlencoded", b"a=b")
    assert e.value.status == 415
    assert "application/xml or application/json" in e.value.detail


@pytest.mark.parametrize(
    "path, query, headers, accepted",
    [
        ("/disks/d1", "", {"version": "4"}, False),
        ("/disks/d1", "async=true", {"version": "4"}, False),
        ("/disks/d1;async", "", {"version": "4"}, True),
        ("/disks/d1;async=True", "", {"version": "3"}, True),
        ("/disks/d1;async=false", "", {"version": "4"}, False),
        ("/disks/d1", "", {"version": "3"}, True),
        ("/disks/d1", "", {"version": "3", "expect": "201-created"}, False),
        ("/disks/d1", "", {"x_ovirt_expect": "202-accepted"}, True),
        ("/disks/d1", "", {"expect": "202-accepted"}, True),
        ("/disks/d1", "", {"expect": "202-accepted; 100-continue"}, True),
    ],
)
def test_when_a_removal_is_answered_with_202(path, query, headers, accepted) -> None:
    assert asked(API + path, query, "DELETE", **headers).accepted is accepted


def test_headers_and_parameters_that_say_the_same() -> None:
    assert asked(API, "all_content=true").all_content
    assert asked(API, all_content="True").all_content
    assert asked(API, filter="true").filtered
    assert asked(API, "filter=true").filtered
    assert not asked(API, filter="False").filtered
    assert asked(API, prefer="persistent-auth").persistent
    assert asked(API, expect="201-created").waits is Waits.TILL_DONE


def test_correlation_ids() -> None:
    assert asked(API, correlation_id="abc-1").correlation_id == "abc-1"
    assert asked(API, "correlation_id=abc-1").correlation_id == "abc-1"
    assert len(asked(API).correlation_id) == 36
    for wrong in ("a b", "a\nb", "x" * 51):
        with pytest.raises(Invalid):
            asked(API, correlation_id=wrong)


def test_follow() -> None:
    read = asked(API, "follow=disk_attachments.disk,snapshots")
    assert read.follow == [("disk_attachments", "disk"), ("snapshots",)]
    with pytest.raises(Invalid):
        asked(API, "follow=" + ",".join("a" * 21))


def test_a_head_is_a_get() -> None:
    assert asked(API, method="HEAD").method == "GET"


@given(
    st.text(alphabet="/;=%v3api&\x00é disks", max_size=30),
    st.text(alphabet="a=&%;+max", max_size=20),
    st.dictionaries(
        st.sampled_from(
            ["Accept", "Version", "Expect", "Prefer", "Content-Type", "Correlation-Id"]
        ),
        st.text(max_size=12),
    ),
)
def test_any_request_is_read_or_refused(path, query, headers) -> None:
    for prefix in ("", API):
        try:
            request("GET", prefix + path, query, headers)
        except EngineError as e:
            assert e.status in {400, 404, 406, 415}
