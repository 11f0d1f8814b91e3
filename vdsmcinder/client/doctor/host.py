# SPDX-License-Identifier: GPL-2.0-or-later
"""The host as the doctor sees it, and its checks of what is neither libvirt's nor Ceph's.

Each check looks at one thing, and says what mends it on this system.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdsmcinder import config
from vdsmcinder.ceph.findings import Check, Finding, State
from vdsmcinder.client import system
from vdsmcinder.client.doctor import authorities
from vdsmcinder.client.exit_codes import CommandFailed
from vdsmcinder.client.session import Session, Unreachable, over_unix
from vdsmcinder.config import Config, ConfigError, Listen
from vdsmcinder.errors import RemoteError
from vdsmcinder.host import packages
from vdsmcinder.monitoring.certificate_expiry import DAY_S
from vdsmcinder.tasks import within
from vdsmcinder.transport.certificates import Certificates, Held, Owner

SERVICE, SOCKET = "vdsm-cinderd.service", "vdsm-cinderd.socket"
PROBE = Path(__file__).with_name("probe.py")
# The daemon's answer is waited for less long than any check lasts.
ANSWER_S = 6.0
CONFIGURATION, DAEMON = Check("configuration"), Check("daemon")
CERTIFICATES, LIBRBD = Check("certificates"), Check("librbd")
_BINDINGS = "import rados, rbd"
_PYTHON = "python3-rados python3-rbd"
_RENEW = {
    Owner.HOST: "vdsm-cinder pki renew --reload",
    Owner.CA: "vdsm-cinder pki renew --with-ca --reload",
    Owner.HOSTS_CA: authorities.RENEW,
}
_HOLDER = re.compile(r'\("([^"]+)",pid=(\d+)')


@dataclass(frozen=True)
class Host:
    """What the checks share. trouble: why the configuration is not in force; empty if it is.

    socket: the daemon's unix socket. asking: for what libvirt tells client/doctor/probe.py.
    """

    settings: Config
    origin: str
    trouble: str
    socket: str
    asking: asyncio.Future[dict[str, Any]]

    async def libvirt(self) -> dict[str, Any]:
        """What libvirt tells; {error} if it does not."""
        return await asyncio.shield(self.asking)

    def session(self, timeout_s: float = ANSWER_S) -> Session:
        """For calls of the daemon's verbs; to be made in a thread."""
        return over_unix(self.socket, timeout_s)


def settings_of(path: Path | None) -> tuple[Config, str, str]:
    """The daemon's configuration, where it is from, and what is wrong with it."""
    file = path or config.DEFAULT_PATH
    if path is None and not file.exists():
        return Config(), "built-in values", ""
    try:
        return config.load(file), str(file), ""
    except ConfigError as e:
        return Config(), str(file), str(e)


async def ask_libvirt(uri: str, timeout_s: float) -> dict[str, Any]:
    """What libvirt tells the daemon's user; {error} if it does not."""
    try:
        return await within(_probe(uri=uri), timeout_s)
    except asyncio.TimeoutError:
        return {"error": f"it does not answer within {timeout_s:g} s"}


async def _probe(**asked: Any) -> dict[str, Any]:
    """What client/doctor/probe.py finds as the daemon's user; {error} if that cannot be run."""
    words = (sys.executable, "-I", str(PROBE))
    told = await system.run(*words, stdin=json.dumps(asked), identity=system.daemon_identity())
    if told.code != 0:
        return {"error": told.err.rpartition("\n")[2]}
    found: dict[str, Any] = json.loads(told.out)
    return found


async def configuration(host: Host) -> list[Finding]:
    """Whether the daemon can use its configuration, and whether all can be seen."""
    found = [CONFIGURATION.wrong(host.trouble, f"edit {host.origin}")] if host.trouble else []
    if os.geteuid() != 0:
        found.append(CONFIGURATION.warning("not all can be seen", "sudo vdsm-cinder doctor"))
    return found or [CONFIGURATION.ok(host.origin)]


async def daemon(host: Host) -> list[Finding]:
    """Whether it answers, and what it says of itself."""
    try:
        health = await system.in_thread(host.session().health)
    except Unreachable as e:
        return [await _silent_daemon(str(e))]
    except (CommandFailed, RemoteError) as e:
        return [DAEMON.wrong(str(e), f"systemctl restart {SERVICE}")]
    found = [_of_reason(reason, health["ready"]) for reason in health["reasons"]]
    return found or [DAEMON.ok(f"answers on {host.socket}, and misses nothing")]


def _of_reason(reason: str, ready: bool) -> Finding:
    message, _, remedy = reason.partition("; ")
    return DAEMON.warning(message, remedy) if ready else DAEMON.wrong(message, remedy)


async def _silent_daemon(why: str) -> Finding:
    shown = await system.unit(SERVICE, "LoadState", "ActiveState", "Result")
    message, _, remedy = why.partition("; ")
    if shown.get("LoadState") == "not-found":
        install = "make install" if system.is_debian() else "dnf install vdsm-cinder"
        return DAEMON.wrong("vdsm-cinderd is not installed on this host", install)
    state = shown.get("ActiveState")
    if state is None:
        return DAEMON.wrong(message, remedy)
    if state == "failed":
        remedy = f"journalctl --unit={SERVICE} --lines=20"
        return DAEMON.wrong(f"it could not start ({shown.get('Result')})", remedy)
    if state == "active":
        return DAEMON.wrong(f"systemd runs it, but {why}", f"systemctl restart {SERVICE}")
    return DAEMON.wrong(f"it does not run: {message}", f"systemctl start {SERVICE}")


async def port(host: Host) -> list[Finding]:
    """Whether the port is the daemon's, or free for it."""
    number, of_systemd = await _port(host)
    check = Check(f"port {number}")
    query = ("--no-header", "--listening", "--tcp", "--numeric", "--processes")
    try:
        listed = await system.run("ss", *query, f"sport = :{number}")
    except system.Missing:
        remedy = system.install("iproute", "iproute2")
        return [check.unknown("there is no program ss", remedy)]
    if not listed.out.strip():
        return [check.ok("free: nobody listens there")]
    holders = {(comm, int(pid)) for comm, pid in _HOLDER.findall(listed.out)}
    if not holders:
        return [check.unknown("somebody listens there; root sees who")]
    for comm, pid in holders:
        if (pid == 1 and of_systemd) or "vdsm-cinderd" in system.command_line(pid):
            return [check.ok(f"ours: {comm} (pid {pid}) listens there")]
    comm, pid = min(holders)
    unit = system.service_of(pid)
    remedy = f"systemctl disable --now {unit}" if unit else f"kill {pid}"
    return [check.wrong(f"taken by {comm} (pid {pid}{f', {unit}' if unit else ''})", remedy)]


async def _port(host: Host) -> tuple[int, bool]:
    """The port, and whether systemd opens it: then the configuration's does not count."""
    shown = await system.unit(SOCKET, "LoadState", "Listen", "ActiveState")
    listens = re.search(r":(\d+) \(Stream\)", shown.get("Listen", ""))
    if shown.get("LoadState") == "loaded" and listens:
        return int(listens[1]), shown.get("ActiveState") == "active"
    return host.settings.listen.port, False


async def certificates(host: Host) -> list[Finding]:
    """Whether the daemon can use them, and for how long."""
    listen = host.settings.listen
    if not listen.tls:
        remedy = f"set listen.tls to true in {host.origin}"
        message = "listen.tls is false: who reaches the port controls all VMs"
        return [CERTIFICATES.warning(message, remedy)]
    try:
        held = Certificates(listen).held
    except (ConfigError, OSError) as e:
        return [CERTIFICATES.wrong(str(e), _mend_files(listen))]
    found = [_of_held(one, listen) for one in held]
    found += [
        CERTIFICATES.wrong(f"the daemon's user may not read {path}: {why}", _let_in(path))
        for path, why in (await _probe(files=[listen.certificate, listen.key, listen.ca])).items()
    ]
    found += await authorities.look(host.settings)
    bad = [finding for finding in found if finding.state is not State.OK]
    return bad or [CERTIFICATES.ok("; ".join(finding.message for finding in found))]


def _mend_files(listen: Listen) -> str:
    if all(Path(path).exists() for path in (listen.certificate, listen.key, listen.ca)):
        return "vdsm-cinder pki show"
    return f"vdsm-cinder pki init --name {socket.getfqdn()}"


def _let_in(path: str) -> str:
    return f"chgrp {system.USER} {path}; chmod g+r {path}"


def _of_held(held: Held, listen: Listen) -> Finding:
    left_days = (held.expires_at - time.time()) / DAY_S
    remedy = _RENEW[held.owner]
    whose = f"{'the host' if held.owner is Owner.HOST else 'the CA'}'s ({held.file})"
    if left_days <= 0:
        return CERTIFICATES.wrong(f"{whose} has expired", remedy)
    lasts = f"{whose} is valid for {left_days:.0f} days"
    if left_days <= listen.expiry_warning_days:
        return CERTIFICATES.warning(lasts, remedy)
    return CERTIFICATES.ok(lasts)


async def librbd(host: Host) -> list[Finding]:
    """Whether it is installed, with what Python needs of it."""
    version = (await _versions()).get("librbd1")
    if version is None:
        return [LIBRBD.wrong("librbd1 is not installed", system.install("librbd1", "librbd1"))]
    tried = await system.run(sys.executable, "-I", "-c", _BINDINGS)
    if tried.code != 0:
        said = tried.err.splitlines()[-1:] or ["no word"]
        message = f"Python cannot use librados and librbd: {said[0]}"
        return [LIBRBD.wrong(message, system.install(*[_PYTHON] * 2))]
    return [LIBRBD.ok(f"{version.version}, and Python can use it")]


async def _versions() -> dict[str, packages.Version]:
    """As host/packages.py tells them, with a deadline: a locked database of RPM's hangs."""
    for manager in packages.MANAGERS:
        if not any(_holds(database) for database in manager.databases):
            continue
        try:
            listed = await system.run(*manager.query, *packages.names())
        except system.Missing:
            continue
        return packages.parse(listed.out)
    return {}


def _holds(database: str) -> bool:
    try:
        return Path(database).stat().st_size > 0
    except OSError:
        return False
