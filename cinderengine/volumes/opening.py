# SPDX-License-Identifier: GPL-2.0-or-later
"""From a provider to its volumes: which service it is, its URL says."""

from __future__ import annotations

from cinderengine.model.providers import Provider, ProviderKind
from cinderengine.model.secret import Secret
from cinderengine.volumes.addresses import PoolAddress
from cinderengine.volumes.cinder import CinderVolumes
from cinderengine.volumes.cinder_client import CinderClient
from cinderengine.volumes.rbd import PoolVolumes
from cinderengine.volumes.service import VolumeService


def open(provider: Provider, password: Secret | None) -> VolumeService:
    """The volumes of a provider; nothing is asked of it yet, and close() ends all of it.

    password: None or empty where there is none. Called in the event loop in which it is used.
    Raises Invalid and Incomplete for a URL or a user that cannot be.
    """
    if provider.kind is ProviderKind.POOL:
        return PoolVolumes(PoolAddress.of(provider.url), provider.username, password)
    return CinderVolumes(CinderClient(provider, password))
