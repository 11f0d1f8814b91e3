# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests to one Cinder, in threads: a token, where its API is, and an answer or an error.

Sessions, tokens and the catalog are keystoneauth's, on which openstacksdk stands; its layer of
resources would take 20 MB and half a second more, and keep Cinder's own words from us.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from keystoneauth1 import exceptions as ks
from keystoneauth1.access.access import AccessInfo
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from cinderengine.errors import Incomplete, Invalid, Unavailable
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.volumes import cinder_faults
from cinderengine.volumes.addresses import CinderAddress, keystone_v3

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 60.0
# As catalogs have named Cinder over the years.
_SERVICE_TYPES = ("block-storage", "block-store", "volumev3", "volumev2", "volume")
_DEFAULT_DOMAIN = "Default"


@dataclass(frozen=True)
class _Way:
    """How Cinder is asked: its API's version 3 with our project, and its latest microversion."""

    endpoint: str
    project_id: str
    latest: tuple[int, int]


class CinderClient:
    """A Cinder, asked as the provider says. Blocks: for threads, of which several may use it."""

    def __init__(
        self, provider: Provider, password: Secret | None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        self._provider = provider
        self._password = password
        self._timeout_s = timeout_s
        self._address = CinderAddress.of(provider.url)
        self._session = Session(verify=_trusted(), timeout=timeout_s, redirect=False)
        self._auth: v3.Password | None = None
        self._auth_url = ""
        self._way: _Way | None = None
        self._entering = threading.Lock()

    @property
    def url(self) -> str:
        """Where Cinder is, for people."""
        return self._provider.url

    @property
    def project_id(self) -> str:
        """Of the project whose volumes these are."""
        return self._enter().project_id

    def has(self, major: int, minor: int) -> bool:
        """Whether Cinder knows this microversion."""
        return self._enter().latest >= (major, minor)

    def call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        version: str | None = None,
    ) -> dict[str, Any]:
        """What Cinder answers; what: is asked for, in words. Raises NotFound and its like."""
        url = self._enter().endpoint + path
        response = self._send(method, url, body=body, query=query, version=version)
        if response.status_code == 401 and self._auth is None:
            raise Invalid(
                f"Cinder at {self.url} lets in only who has a token of its Keystone: have the "
                "provider require authentication, with a user and a password."
            )
        if response.status_code >= 300:
            raise cinder_faults.of_answer(self.url, response, what, path == "/volumes")
        if not response.content:
            return {}
        answer = _json(response)
        if answer is None:
            raise cinder_faults.of_answer(self.url, response, what, False)
        return answer

    def forget(self) -> None:
        """Find the way anew when it is next needed."""
        self._way = None

    def close(self) -> None:
        """Close connections that wait for more requests."""
        self._session.close()

    def _enter(self) -> _Way:
        way = self._way
        if way is None:
            with self._entering:
                way = self._way = self._way or self._find_way()
        return way

    def _find_way(self) -> _Way:
        latest = self._latest(f"{self._address.root}/", authenticated=False)
        project_id = self._let_in() if self._provider.requires_authentication else self._project()
        if latest is None:
            latest = self._latest(f"{self._address.v3}/", authenticated=True)
        if latest is None:
            raise Invalid(f"There is no Cinder API at {self.url}: correct the URL.")
        return _Way(f"{self._address.v3}/{project_id}", project_id, latest)

    def _latest(self, url: str, *, authenticated: bool) -> tuple[int, int] | None:
        """The latest microversion of version 3, as a document at url tells; None: there is none.

        Invalid if the document is one of another service, or of a Cinder without version 3.
        """
        response = self._send("GET", url, authenticated=authenticated)
        if response.status_code >= 500:
            raise cinder_faults.of_answer(self.url, response, "its versions", False)
        if response.status_code in (301, 302, 307, 308) and response.headers.get("Location"):
            to = response.headers["Location"]
            if urlsplit(to)[:2] != urlsplit(url)[:2]:
                raise Invalid(f"{self.url} leads on to {to}: give that as the URL.")
            return None
        document = _json(response)
        if document is None:
            if "html" in response.headers.get("Content-Type", "") and response.ok:
                raise Invalid(
                    f"What answers at {self.url} is a page of HTML, not Cinder's API: correct the "
                    "URL."
                )
            return None
        versions = document.get("versions")
        if versions is None:
            return None
        if not isinstance(versions, list) or not _of_cinder(versions):
            raise Invalid(f"What answers at {self.url} is another service than Cinder: correct it.")
        offered = [str(v.get("id")) for v in versions]
        ours = next((v for v in versions if str(v.get("id")).startswith("v3")), None)
        if ours is None:
            raise Invalid(
                f"Cinder at {self.url} offers {', '.join(offered)} of its API and not version 3: "
                "a later Cinder is needed."
            )
        return _microversion(ours.get("version"))

    def _project(self) -> str:
        """The project of a Cinder without Keystone, which is whatever we say."""
        ours, theirs = self._provider.project, self._address.project
        if ours and theirs and ours != theirs:
            raise self._other_project(ours)
        if not ours and not theirs:
            raise Incomplete(
                f"Cinder at {self.url} needs a project: give it as tenant, or at the URL's end as "
                "in /v3/PROJECT."
            )
        return ours or theirs

    def _other_project(self, ours: str) -> Invalid:
        return Invalid(
            f"URL {self.url} is of project {self._address.project}, and the provider's project "
            f"(tenant) is {ours}: correct the one or leave the URL's out."
        )

    def _let_in(self) -> str:
        """Have a token; the id of the project that it is for."""
        given = self._provider
        if not given.username or self._password is None:
            raise Incomplete(f"Cinder at {self.url} needs a user and a password to log in with.")
        if not given.project and not self._address.project:
            raise Incomplete(
                f"Cinder at {self.url} needs a project to log in to: give its name as tenant."
            )
        self._auth_url = keystone_v3(given.authentication_url or self._named_keystone())
        self._auth = v3.Password(
            auth_url=self._auth_url,
            username=given.username,
            password=self._password.reveal(),
            user_domain_name=given.user_domain or _DEFAULT_DOMAIN,
            project_name=given.project or None,
            project_domain_name=(given.project_domain or _DEFAULT_DOMAIN)
            if given.project
            else None,
            project_id=None if given.project else self._address.project,
        )
        access = self._access()
        project_id = str(access.project_id)
        if self._address.project not in ("", project_id):
            raise self._other_project(f"{given.project}, whose id is {project_id}")
        _check_region(access, self.url, self._address, given.region)
        return project_id

    def _named_keystone(self) -> str:
        """The Keystone that Cinder names to those who come without a token."""
        response = self._send("GET", f"{self._address.v3}/", authenticated=False)
        challenge = response.headers.get("WWW-Authenticate", "")
        _, found, rest = challenge.partition('uri="')
        if not found:
            raise Incomplete(
                f"Cinder at {self.url} does not name its Keystone: give the authentication URL."
            )
        return str(rest.partition('"')[0])

    def _access(self) -> AccessInfo:
        assert self._auth is not None
        try:
            return self._auth.get_access(self._session)  # type: ignore[no-any-return,unused-ignore]
        except ks.ClientException as e:
            project = self._provider.project or self._address.project
            raise cinder_faults.of_keystone(
                e, self._auth_url, self._provider.username, project, self._timeout_s
            ) from e

    def _token(self) -> str:
        if self._auth is None:
            # What Cinder's noauth takes for one: who asks, and for which project.
            return f"{self._provider.username or 'admin'}:{self._project()}"
        return str(self._access().auth_token)

    def _send(
        self,
        method: str,
        url: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        version: str | None = None,
        authenticated: bool = True,
    ) -> requests.Response:
        """One request, and a second with a new token if the first one's is not taken any more."""

        def once() -> requests.Response:
            headers = {"Accept": "application/json"}
            if authenticated:
                headers["X-Auth-Token"] = self._token()
            if version is not None:
                headers["OpenStack-API-Version"] = f"volume {version}"
            try:
                return self._session.request(  # type: ignore[no-any-return,unused-ignore]
                    url,
                    method,
                    json=body,
                    params=query,
                    headers=headers,
                    authenticated=False,
                    raise_exc=False,
                    # A connection that was kept may have been closed meanwhile.
                    connect_retries=1 if method == "GET" else 0,
                    connect_retry_delay=0.1,
                )
            except ks.ConnectionError as e:
                raise cinder_faults.of_connection("Cinder", self.url, e, self._timeout_s) from e
            except (ks.ClientException, requests.RequestException) as e:
                said = cinder_faults.one_line(str(e))
                raise Unavailable(f"Cinder at {self.url} cannot be asked: {said}.") from e

        response = once()
        if response.status_code == 401 and authenticated and self._auth is not None:
            log.info("Cinder at %s does not take the token any more; it is renewed", self.url)
            self._auth.invalidate()
            response = once()
        return response


def _json(response: requests.Response) -> dict[str, Any] | None:
    """The object that a body is; None for anything else."""
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _of_cinder(versions: list[Any]) -> bool:
    """Whether a document of versions is a Cinder's, by its media types."""
    types = [
        str(media.get("type"))
        for version in versions
        if isinstance(version, dict)
        for media in version.get("media-types", ())
    ]
    return not types or any("openstack.volume" in media for media in types)


def _microversion(text: Any) -> tuple[int, int]:
    major, _, minor = str(text or "3.0").partition(".")
    try:
        return int(major), int(minor)
    except ValueError:
        return 3, 0


def _trusted() -> str | bool:
    """The authorities that this machine trusts, and not those that the requests library brings."""
    named = os.environ.get("REQUESTS_CA_BUNDLE") or ssl.get_default_verify_paths().cafile
    for bundle in (named, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if bundle and os.path.exists(bundle):
            return bundle
    return True


def _check_region(access: AccessInfo, url: str, address: CinderAddress, region: str) -> None:
    """Raise Invalid for a region that has no Cinder, or one that has another than the URL's."""
    found = list(_endpoints(access))
    regions = sorted({where for where, _ in found})
    if not found:
        log.info("the catalog of Keystone names no Cinder; %s is taken as it is", url)
        return
    if region and region not in regions:
        raise Invalid(
            f"Region {region} has no Cinder in Keystone's catalog: give one of those that have, "
            f"{', '.join(regions)}."
        )
    ours = urlsplit(address.root)[:2]
    of_url = sorted({where for where, endpoint in found if urlsplit(endpoint)[:2] == ours})
    if region and of_url and region not in of_url:
        raise Invalid(
            f"URL {url} is of the Cinder of region {', '.join(of_url)}, and the provider's region "
            f"is {region}: correct the one or the other."
        )
    if not of_url:
        log.info("the catalog of Keystone does not name %s; it is taken as it is", url)


def _endpoints(access: AccessInfo) -> Iterator[tuple[str, str]]:
    """Region and URL of each endpoint of a Cinder in the catalog."""
    if not access.has_service_catalog():
        return
    for service in access.service_catalog.catalog:
        if service.get("type") in _SERVICE_TYPES:
            for endpoint in service.get("endpoints", ()):
                yield str(endpoint.get("region_id") or endpoint.get("region")), endpoint["url"]
