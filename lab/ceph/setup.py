# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what a new Ceph cluster needs before its first daemon starts: configuration, keys, map.

It is done once, while the lab starts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.base import ENGINE_ADDRESS, PREFIX, run

POOL = "volumes"
USER = "cinder"

# Who may do what. The OSD and the manager have these names, and there is one of each.
CAPABILITIES = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "mgr.x": ("mon", "allow profile mgr", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"),
    f"client.{USER}": ("mon", "profile rbd", "osd", f"profile rbd pool={POOL}"),
}

# One node, one copy, data in memory: an alarm elsewhere, but how the lab is meant to be. Elections
# and changes of maps wait for less long than by default, which makes the start some 10 s shorter.
CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = {mon_host}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_election_timeout = 1
paxos_propose_interval = 0.1
mon_data_avail_crit = 1
mon_data_avail_warn = 1
run_dir = {directory}/run

[client]
keyring = {directory}/$name.keyring

[mon]
mon_data = {directory}/data/$name
mon_cluster_log_file = {log}/cluster.log
mon_cluster_log_file_level = info
log_file = {log}/$name.log
pid_file = {directory}/run/$name.pid
admin_socket = {directory}/run/$name.asok

[mgr]
public_addr = {address}
keyring = {directory}/$name.keyring
mgr_data = {directory}/data/$name
log_file = {log}/$name.log
pid_file = {directory}/run/$name.pid
admin_socket = {directory}/run/$name.asok

[osd]
public_addr = {address}
keyring = {directory}/$name.keyring
osd_data = {directory}/data/$name
# A file in osd_data, which the lab has in memory: killed, the OSD comes back with its data.
osd_objectstore = bluestore
bluestore_block_size = 4294967296
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
bluestore_fsck_on_mkfs = false
log_file = {log}/$name.log
pid_file = {directory}/run/$name.pid
admin_socket = {directory}/run/$name.asok
"""


@dataclass(frozen=True)
class Monitor:
    """One monitor; it listens on both ports of its own address."""

    name: str
    address: str
    v2_port: int = 3300
    v1_port: int = 6789

    @property
    def both(self) -> str:
        """Both of its addresses, as monmaptool and mon_host write them."""
        return f"[v2:{self.address}:{self.v2_port},v1:{self.address}:{self.v1_port}]"


MONITORS = tuple(Monitor(name, f"{PREFIX}.{11 + n}") for n, name in enumerate("abc"))


def write_cluster_files(directory: Path, log: Path) -> None:
    """Write ceph.conf, a keyring for each entity, the monitors' first keyring and their map."""
    fsid = uuid.uuid4()
    (directory / "run").mkdir()
    (directory / "ceph.conf").write_text(
        CONFIGURATION.format(
            fsid=fsid,
            mon_host=",".join(monitor.both for monitor in MONITORS),
            address=ENGINE_ADDRESS,
            directory=directory,
            log=log,
        )
    )
    _write_keyrings(directory)
    _write_monmap(directory / "monmap", str(fsid), MONITORS)


def _write_keyrings(directory: Path) -> None:
    first = ""
    for entity, pairs in CAPABILITIES.items():
        key = run(["ceph-authtool", "--gen-print-key"]).strip()
        own = f"[{entity}]\nkey = {key}\n"
        (directory / f"{entity}.keyring").write_text(own)
        grants = zip(pairs[::2], pairs[1::2])
        first += own + "".join(f'caps {service} = "{caps}"\n' for service, caps in grants)
    # The monitors import every key of this one when they are made, so no key is created later.
    (directory / "first.keyring").write_text(first)


def _write_monmap(path: Path, fsid: str, monitors: Sequence[Monitor]) -> None:
    run(
        [
            "monmaptool",
            "--create",
            "--clobber",
            "--fsid",
            fsid,
            "--set-min-mon-release",
            "pacific",
            path,
        ]
    )
    for monitor in monitors:
        run(["monmaptool", "--addv", monitor.name, monitor.both, path])
