# SPDX-License-Identifier: GPL-2.0-or-later
"""What the database holds: `disks.get(conn, disk_id)`, `hosts.all(conn, cluster_id=…)`."""

from __future__ import annotations

from cinderengine.model.centers import Cluster, DataCenter
from cinderengine.model.disks import Disk
from cinderengine.model.domains import StorageDomain
from cinderengine.model.events import Event
from cinderengine.model.hosts import Host
from cinderengine.model.jobs import Job, Step
from cinderengine.model.providers import AuthenticationKey, Provider
from cinderengine.model.users import Token, User
from cinderengine.store import tables
from cinderengine.store.rows import Rows

data_centers = Rows(tables.data_centers, DataCenter)
clusters = Rows(tables.clusters, Cluster)
hosts = Rows(tables.hosts, Host)
providers = Rows(tables.providers, Provider)
authentication_keys = Rows(tables.authentication_keys, AuthenticationKey)
storage_domains = Rows(tables.storage_domains, StorageDomain)
disks = Rows(tables.disks, Disk)
users = Rows(tables.users, User)
tokens = Rows(tables.tokens, Token)
jobs = Rows(tables.jobs, Job)
steps = Rows(tables.steps, Step)
events = Rows(tables.events, Event)
