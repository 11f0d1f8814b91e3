# SPDX-License-Identifier: GPL-2.0-or-later
"""Cinder's API, scheduler and volume services in one process.

Run by its path, with the packages of Debian's Cinder on PYTHONPATH: process.py CONFIGURATION
STARTED. One process imports Cinder once and not three times, which is most of its start, and has no
need of a message broker: oslo.messaging's own transport within a process does.
"""

# ruff: noqa: E402, PLC0415  Eventlet has to be first; Cinder is there only where the lab runs it.

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def main(configuration: str, started: str) -> None:
    """Make the database and serve until a signal ends it; make the file `started` meanwhile."""
    from cinder import objects, rpc, service, version
    from cinder.common import config  # noqa: F401  it declares the options
    from cinder.db import migration
    from oslo_config import cfg
    from oslo_log import log
    from oslo_service import service as oslo_service

    conf = cfg.CONF
    log.register_options(conf)
    conf(["--config-file", configuration], project="cinder", version=version.version_string())
    log.setup(conf, "cinder")
    objects.register_all()
    migration.db_sync()
    rpc.init(conf)
    backend = conf.enabled_backends[0]
    launcher = oslo_service.ServiceLauncher(conf)
    launcher.launch_service(service.Service.create(binary="cinder-scheduler"))
    launcher.launch_service(
        service.Service.create(
            binary="cinder-volume",
            host=f"{conf.host}@{backend}",
            service_name=backend,
            coordination=True,
        )
    )
    launcher.launch_service(service.WSGIService("osapi_volume"))
    eventlet.spawn(_tell_when_up, conf, Path(started))
    launcher.wait()


def _tell_when_up(conf: Any, started: Path) -> None:
    """Ask the API, as anyone would, until it says that both other services are up."""
    project = "0" * 32
    where = f"http://{conf.osapi_volume_listen}:{conf.osapi_volume_listen_port}/v3/{project}"
    request = urllib.request.Request(
        f"{where}/os-services", headers={"X-Auth-Token": f"lab:{project}"}
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                services = json.load(answer)["services"]
            if sum(service["state"] == "up" for service in services) == 2:
                started.touch()
                return
        except urllib.error.URLError:
            pass  # it does not listen yet
        eventlet.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
