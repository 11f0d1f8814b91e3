# SPDX-License-Identifier: GPL-2.0-or-later
"""The API's root: what there is, which version it has, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from cinderengine.api.parts import Parts
from cinderengine.api.resources.table import Collection
from cinderengine.api.types.entity import Entity, Link, entity, filled, reference
from cinderengine.api.types.schema import Version
from cinderengine.model.domains import DomainStatus
from cinderengine.model.hosts import HostStatus
from cinderengine.model.ids import BLANK, now_ms
from cinderengine.store.entities import hosts, storage_domains, users

# The version of oVirt's API that is served; clients look whether it is new enough.
SERVED = (4, 5)


async def root(parts: Parts, roots: Sequence[Collection[Any]], version: Version) -> Entity:
    """The root as a version has it."""
    links = [Link(one.name, f"/{one.name}") for one in roots]
    links += [
        Link(f"{one.name}/search", f"/{one.name}?search={{query}}") for one in roots if one.fields
    ]
    return entity(
        "api",
        links=tuple(links),
        product_info=entity(
            "product_info",
            name="cinder-engine",
            vendor="vdsm-cinder",
            version=entity(
                "version",
                major=SERVED[0],
                minor=SERVED[1],
                build=0,
                revision=0,
                full_version=f"{SERVED[0]}.{SERVED[1]}.0.0",
            ),
        ),
        special_objects=_special_objects(version),
        summary=await parts.store.read(_summary),
        time=now_ms(),
    )


def _special_objects(version: Version) -> Entity:
    if version is Version.V3:
        links = (
            Link("templates/blank", f"/templates/{BLANK}"),
            Link("tags/root", f"/tags/{BLANK}"),
        )
        return entity("special_objects", links=links)
    return entity(
        "special_objects",
        blank_template=reference("template", BLANK, "/templates"),
        root_tag=reference("tag", BLANK, "/tags"),
    )


def _summary(conn: Connection) -> Entity:
    counted = {
        "hosts": (hosts.count(conn, status=HostStatus.UP), hosts.count(conn)),
        "storage_domains": (
            storage_domains.count(conn, status=DomainStatus.ACTIVE),
            storage_domains.count(conn),
        ),
        "users": (users.count(conn, enabled=True), users.count(conn)),
        "vms": (0, 0),
    }
    items = {
        name: entity("api_summary_item", active=active, total=total)
        for name, (active, total) in counted.items()
    }
    return filled("api_summary", items)
