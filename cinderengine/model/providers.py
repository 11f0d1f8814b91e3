# SPDX-License-Identifier: GPL-2.0-or-later
"""Where volumes come from, and the keys with which hosts reach them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProviderKind(StrEnum):
    """What a provider's URL leads to."""

    CINDER = "cinder"
    POOL = "pool"

    @classmethod
    def of(cls, url: str) -> ProviderKind:
        """A pool's URL is rbd://MONITOR,…/POOL."""
        return cls.POOL if url.lower().startswith("rbd:") else cls.CINDER


@dataclass(frozen=True)
class Provider:
    """A Cinder, or a Ceph pool without one. name and url: unique.

    sealed_password: as access.sealing made it; empty if there is none. project: Keystone's, which
    oVirt calls the tenant. properties: further ones, such as a region.
    """

    id: str
    name: str
    url: str
    description: str = ""
    comment: str = ""
    data_center_id: str | None = None
    requires_authentication: bool = False
    authentication_url: str = ""
    username: str = ""
    sealed_password: str = ""
    project: str = ""
    user_domain: str = ""
    project_domain: str = ""
    region: str = ""

    @property
    def kind(self) -> ProviderKind:
        """What its URL leads to."""
        return ProviderKind.of(self.url)


@dataclass(frozen=True)
class AuthenticationKey:
    """A CEPHX key that hosts of a provider's data center are given. uuid: libvirt's secret's.

    revision: counts its changes, so that it is known which of them a host has.
    """

    id: str
    provider_id: str
    uuid: str
    sealed_value: str
    description: str = ""
    usage_type: str = "ceph"
    created_ms: int = 0
    revision: int = 1
