# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of the lab joins an engine by the line that the engine gave for it.

It is as a package leaves a host: the daemon has no certificates and does not run, and libvirt lets
in nobody whom the lab's own authority knows. Hosts that the lab's certificates are needed for
later are not for this.
"""

from __future__ import annotations

import shlex

from lab.host.daemon import CLIENT, HostDaemon
from lab.host.hypervisor import Host
from lab.pki import Pki

LIBVIRTD_CONF = "/etc/libvirt/libvirtd.conf"
# Join sets it.
OURS = "tls_allowed_dn_list"


def before_joining(host: Host, pki: Pki) -> HostDaemon:
    """The daemon of a host that has not joined yet; it can be started once that has."""
    own = host.lab_dir / "joined" / host.name / "pki"
    certificates, keys = own / "certs", own / "keys"
    listen = {
        "certificate": str(certificates / "vdsmcert.pem"),
        "key": str(keys / "vdsmkey.pem"),
        "ca": str(certificates / "cacert.pem"),
        "hosts_ca": "",
    }
    changes = {"listen": listen, "migration": {"certificate": "", "key": ""}}
    conf = host.path(LIBVIRTD_CONF)
    lines = conf.read_text().splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith(OURS)))
    return HostDaemon(host, pki, changes, "joined")


def join(daemon: HostDaemon, line: str) -> str:
    """Run the line on the daemon's host; what it says, or LabError. Its token goes by stdin."""
    _, verb, url, token = shlex.split(line)
    command = [CLIENT, verb, "--config", daemon.config, url, "-"]
    return daemon.host.run(command, input=f"{token}\n")
