# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of all that is served: the collections below the API's root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cinderengine.api.resources.activity import EVENTS, JOBS
from cinderengine.api.resources.centers import CLUSTERS, DATA_CENTERS
from cinderengine.api.resources.disks import DISKS
from cinderengine.api.resources.domains import STORAGE_DOMAINS
from cinderengine.api.resources.empty import PERMISSIONS, TAGS, empty, fixed
from cinderengine.api.resources.hosts import HOSTS
from cinderengine.api.resources.people import DOMAINS, ROLES, USERS
from cinderengine.api.resources.providers import PROVIDERS
from cinderengine.api.resources.table import Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import entity
from cinderengine.model.ids import BLANK

TEMPLATES = fixed(
    "templates",
    "template",
    entity(
        "template",
        id=BLANK,
        href=made.below("/templates", BLANK),
        name="Blank",
        description="Blank template",
        status="ok",
        memory=1 << 30,
    ),
    under=(
        PERMISSIONS,
        TAGS,
        empty("diskattachments", "disk_attachment"),
        empty("nics", "nic"),
    ),
)
ROOT_TAG = fixed(
    "tags",
    "tag",
    entity("tag", id=BLANK, href=made.below("/tags", BLANK), name="root", description="root"),
)

ROOTS: Sequence[Collection[Any]] = (
    CLUSTERS,
    DATA_CENTERS,
    DISKS,
    EVENTS,
    HOSTS,
    JOBS,
    PROVIDERS,
    STORAGE_DOMAINS,
    USERS,
    ROLES,
    DOMAINS,
    TEMPLATES,
    ROOT_TAG,
    PERMISSIONS,
    empty("affinitylabels", "affinity_label"),
    empty("bookmarks", "bookmark"),
    empty("diskprofiles", "disk_profile"),
    empty("externalhostproviders", "external_host_provider"),
    empty("groups", "group"),
    empty("icons", "icon"),
    empty("instancetypes", "instance_type"),
    empty("macpools", "mac_pool"),
    empty("networks", "network"),
    empty("openstackimageproviders", "openstack_image_provider"),
    empty("openstacknetworkproviders", "openstack_network_provider"),
    empty("operatingsystems", "operating_system_info"),
    empty("schedulingpolicies", "scheduling_policy"),
    empty("storageconnections", "storage_connection"),
    empty("vmpools", "vm_pool"),
    empty("vms", "vm"),
    empty("vnicprofiles", "vnic_profile"),
)
