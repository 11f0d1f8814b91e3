# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon, vdsm-cinderd: builds every part, starts them, says READY, waits, and stops.

systemd runs it, or an operator in the foreground. SIGHUP makes it read its certificates, roles and
log level again. The VMs run on when it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import functools
import logging
import os
import platform
import resource
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import vdsmcinder
from vdsmcinder import config, logs, peer_client
from vdsmcinder.ceph.cluster_monitor import ClusterMonitor, ClusterState
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.config import CertificatesUnusable, Config, ConfigError
from vdsmcinder.host import libvirt_networks, machine
from vdsmcinder.host.capabilities import Capabilities
from vdsmcinder.host.network import Network
from vdsmcinder.host.network_watch import NetworkWatch
from vdsmcinder.host.stats import HostSampler
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.monitoring import health
from vdsmcinder.monitoring.certificate_expiry import Expiry
from vdsmcinder.rpc.access import Access
from vdsmcinder.rpc.dispatch import Dispatcher, Rules, handlers
from vdsmcinder.rpc.events import (
    Events,
    Told,
    host_networks,
    secrets_missing,
    vm_image_taken,
    vm_status,
    vm_thawed,
)
from vdsmcinder.rpc.host import HostVerbs
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.vm import VmVerbs
from vdsmcinder.rpc.wire import ceph, migration
from vdsmcinder.rpc.wire.listing import Listings
from vdsmcinder.rpc.wire.stats import EncodedStats
from vdsmcinder.system.fdstore import FdStore
from vdsmcinder.system.names import Names
from vdsmcinder.system.socket_activation import receive
from vdsmcinder.system.supervision import Supervision
from vdsmcinder.system.threads import Threads
from vdsmcinder.tasks import Tasks, ends_within
from vdsmcinder.transport.listener import Listener, limit_read_buffers
from vdsmcinder.transport.status_pages import Page, Pages
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.fleet import clusters
from vdsmcinder.virt.fleet.disk_checks import DiskChecks
from vdsmcinder.virt.fleet.domain_watch import DomainWatch
from vdsmcinder.virt.fleet.missing_secrets import MissingSecrets
from vdsmcinder.virt.fleet.sampler import Sampler
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.secrets.keyring import Keyring
from vdsmcinder.virt.secrets.secret import SecretName
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.kept_marks import KeptMarks
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm.migration import Progress, Source
from vdsmcinder.virt.vm.migration_request import known_address
from vdsmcinder.virt.vm.parts.freeze_state import LateThaw
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.vm import VM

if TYPE_CHECKING:
    from vdsmcinder.monitoring.metrics import Exporter

log = logging.getLogger(__name__)

# Exit codes: systemd does not try a wrong configuration again (RestartPreventExitStatus=), but
# certificates that may be in the middle of their renewal (sysexits.h, EX_TEMPFAIL).
WRONG_CONFIGURATION = 2
CERTIFICATES_UNUSABLE = 75
# What has not come to its end by then is left to the kernel.
STOP_TIMEOUT_S = 4.5
# How long a thread of libvirt calls or of file reads may keep the event loop waiting, in seconds;
# Python's own 5 ms are some 50 requests.
SWITCH_INTERVAL_S = 0.0001


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of vdsm-cinderd; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        read = functools.partial(_read_config, args.config)
        settings = read()
        if args.show_config:
            sys.stdout.write(config.render(settings))
            return 0
        logs.setup(settings.log.level, settings.log.target)
        # The watchdog's SIGABRT leaves in the log where each thread was stuck.
        faulthandler.enable()
        _prepare_process()
        asyncio.run(serve(settings, read))
    except ConfigError as e:
        return _refusal(e)
    return 0


async def serve(settings: Config, read: Callable[[], Config]) -> None:
    """Run the daemon until SIGTERM or SIGINT; read gives the configuration anew on SIGHUP.

    Raises ConfigError for what it cannot start with.
    """
    loop, stop, threads, names = asyncio.get_running_loop(), asyncio.Event(), Threads(), Names()
    loop.set_default_executor(threads)
    names.install(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(settings, read)
    # Before it is ready it has read everything anew anyway.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    try:
        await daemon.start()
    except ConfigError as e:
        if not await _closed(daemon, threads, names):
            _leave(_refusal(e))
        raise
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    await stop.wait()
    log.info("stopping; the VMs run on")
    if not await _closed(daemon, threads, names):
        _leave(0)


async def _closed(daemon: Daemon, threads: Threads, names: Names) -> bool:
    """Close the daemon; False if something of it is left that the interpreter would wait for."""

    async def close() -> None:
        await daemon.close()
        names.close()
        await threads.idle()

    if not await ends_within(close(), STOP_TIMEOUT_S):
        log.warning("stopping took longer than %g s; the process ends as it is", STOP_TIMEOUT_S)
        return False
    if daemon.stuck_calls:
        log.warning("%d libvirt calls never came back", daemon.stuck_calls)
    return not (daemon.calls_under_way or names.busy)


def _refusal(error: ConfigError) -> int:
    """Tell the operator what is wrong with the configuration; the exit code for it."""
    print(f"vdsm-cinderd: {error}", file=sys.stderr)
    unusable = isinstance(error, CertificatesUnusable)
    return CERTIFICATES_UNUSABLE if unusable else WRONG_CONFIGURATION


def _leave(exit_code: int) -> NoReturn:
    """End the process at once: the interpreter would wait for threads, whatever they hang in."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(exit_code)


class Daemon:
    """All parts of the daemon, and how they are tied together."""

    def __init__(self, settings: Config, read: Callable[[], Config]) -> None:
        self._settings = settings
        self._read = read
        self._reading = asyncio.Lock()
        self._not_reloaded = ""  # why not, if so
        self._exporter: Exporter | None = None
        tasks = self._tasks = Tasks("daemon")
        self._connection = Connection(settings.libvirt, tasks.group("libvirt"))
        handed = receive()
        self._kept_keys = FdStore("secrets", handed.stored)
        self._keyring = Keyring(self._kept_keys)
        self._secrets = Secrets(self._connection, self._keyring, self._secrets_changed)
        self._ceph = Workers(
            settings.ceph.timeout_s, settings.ceph.worker_idle_s, tasks.group("Ceph")
        )
        preflight = Preflight(
            self._ceph, self._secrets, settings.ceph, tasks.group("claims"), self._key_lacked
        )
        policy = DocumentPolicy(settings.policy)
        dial = functools.partial(peer_client.connect, settings.listen, own=settings.migration)
        marks = KeptMarks(self._ceph, self._secrets)
        debts = Debts(self._connection, dial, marks, platform.node(), tasks.group("debts"))
        self._registry = Registry(
            self._connection,
            self._secrets,
            self._ceph,
            preflight,
            libvirt_options=settings.libvirt,
            vm_options=settings.vms,
            policy=policy,
            copies=debts,
            on_change=self._vm_changed,
            on_thaw=self._vm_thawed,
            on_taken=self._vm_taken,
            host_words=machine.document_words(),
            tasks=tasks.group("VMs"),
        )
        self._networks = NetworkWatch(tasks.group("networks"), self._networks_changed)
        self._host = HostSampler(tasks.group("host statistics"))
        self._migrations = Migrations(
            self._registry,
            self._connection,
            self._secrets,
            preflight,
            settings.migration,
            policy=policy,
            dial=dial,
            here=Source(
                platform.node(), known_address(f"{platform.node()}:{settings.listen.port}")
            ),
            available_mib=lambda: self._host.snapshot().memory.available_kib // 1024,
            on_progress=self._migration_progress,
            tasks=tasks.group("migrations"),
            marks=marks,
            debts=debts,
        )
        self._watch = DomainWatch(
            self._connection,
            self._registry,
            self._secrets,
            self._migrations,
            tasks.group("libvirt's domains"),
        )
        self._missing = MissingSecrets(
            self._registry,
            self._secrets,
            self._ask_for_secrets,
            tasks.group("missing secrets"),
            keys_wanted=settings.ceph.preflight != "off",
        )
        self._clusters = ClusterMonitor(
            self._ceph,
            settings.ceph.monitor_interval_s,
            tasks.group("clusters"),
            in_use=lambda: clusters.in_use(self._registry.vms(), self._secrets),
            on_change=self._cluster_changed,
        )
        self._listings = Listings()
        self._stats = EncodedStats(self._listings)
        self._sampler = Sampler(
            self._connection,
            self._registry,
            settings.vms.sample_interval_s,
            on_sample=self._stats.prepare,
            tasks=tasks.group("VM statistics"),
        )
        self._events = Events()
        # Who connects after a restart was not there to hear it.
        self._events.greet_with(self._secrets_to_ask_for)
        self._expiry = Expiry(
            self._events, settings.listen.expiry_warning_days, tasks.group("certificates")
        )
        self._access = Access(settings.access)
        self._dispatcher = self._make_dispatcher(settings)
        pages = Pages(self._health, self._metrics)
        self._supervision = Supervision(self._status, tasks.group("supervision"))
        self._listener = Listener(
            settings.listen,
            settings.rpc,
            self._dispatcher,
            self._events,
            pages,
            tasks.group("listener"),
            handed.sockets,
        )

    def _make_dispatcher(self, settings: Config) -> Dispatcher:
        capabilities = Capabilities(
            self._connection, self._tasks.group("capabilities"), settings.vms.allow_emulation
        )
        checks = DiskChecks(self._ceph, self._secrets)
        host = HostVerbs(
            self._registry,
            self._secrets,
            self._missing,
            capabilities,
            self._host,
            self._clusters,
            self._listings,
            self._stats,
            checks,
            settings,
        )
        rules = Rules(
            lambda: self._watch.recovered, settings.rpc.validate_results, self._access.role
        )
        vm = VmVerbs(self._registry, self._migrations, checks, settings)
        verbs = handlers(Host=host, VM=vm)
        return Dispatcher(schema.load(), verbs, rules, settings.rpc.max_queue)

    @property
    def port(self) -> int:
        """The TCP port, once it is started."""
        return self._listener.port

    async def start(self) -> None:
        """Start every part; returns when clients are served."""
        self._connection.start(self._libvirt_is_up, self._watch.event_handlers())
        await self._host.start()
        await self._networks.start()
        self._sampler.start()
        self._missing.start()
        self._clusters.start()
        await self._listener.start()
        self._expiry.start(self._listener.certificates)
        self._supervision.ready()
        # Anew, in memory that counts as this process's: systemd does not let that be swapped out.
        await self._keyring.save()
        log.info("vdsm-cinderd %s is ready", vdsmcinder.__version__)

    async def close(self) -> None:
        """Stop every part, in the reverse order; the VMs run on."""
        self._supervision.stopping()
        await self._expiry.close()
        await self._listener.close()
        await self._networks.close()
        await self._missing.close()
        await self._clusters.close()
        await self._sampler.close()
        await self._watch.close()
        await self._migrations.close()
        await self._registry.close()
        await self._ceph.close()
        await self._host.close()
        await self._connection.close()
        await self._supervision.close()
        await self._tasks.close()

    @property
    def stuck_calls(self) -> int:
        """libvirt calls that never came back; their threads keep the process from ending."""
        return self._connection.stuck_calls

    @property
    def calls_under_way(self) -> int:
        """All calls that are not back: libvirt copies VMs on when the daemon ends."""
        return self._connection.calls_under_way

    def _vm_changed(self, vm: VM) -> None:
        self._events.publish(*vm_status(vm))
        self._sampler.wake()
        self._missing.wake()
        self._clusters.wake()

    def _secrets_changed(self) -> None:
        self._missing.wake()

    def _cluster_changed(self, cluster: ClusterState) -> None:
        self._events.publish(*ceph.status(cluster))
        if cluster.trouble is None:
            self._registry.storage_may_be_back()

    def _ask_for_secrets(self, uuids: Collection[str]) -> None:
        self._events.publish(*secrets_missing(uuids))

    def _key_lacked(self, name: SecretName, what: str) -> None:
        self._missing.refused(name, what)

    async def _libvirt_is_up(self) -> None:
        await self._watch.recover()
        self._prepare_networks()

    def _networks_changed(self, _found: Network) -> None:
        self._events.publish(*host_networks())
        self._prepare_networks()

    def _prepare_networks(self) -> None:
        # Other drivers, such as libvirt's own for tests, have VMs without networks.
        if self._settings.libvirt.uri.startswith("qemu"):
            self._tasks.spawn(libvirt_networks.prepare(self._connection), "networks")

    def _migration_progress(self, vm: VM, progress: Progress) -> None:
        self._events.publish(*migration.notice(vm.id, progress))

    def _secrets_to_ask_for(self) -> list[Told]:
        missing = self._missing.uuids
        return [secrets_missing(missing)] if missing else []

    def _vm_taken(self, vm: VM) -> None:
        self._events.publish(*vm_image_taken(vm))

    def _vm_thawed(self, vm: VM, late: LateThaw) -> None:
        self._events.publish(*vm_thawed(vm, late))

    def reload(self) -> None:
        """Begin to read certificates, roles and log level again."""
        self._tasks.spawn(self.read_again(), "reload")

    async def read_again(self) -> None:
        """Read certificates, roles and log level again; what cannot be read stays as it was."""
        async with self._reading:
            self._supervision.reloading()
            try:
                self._apply(await asyncio.to_thread(self._read))
                self._not_reloaded = ""
            except ConfigError as e:
                self._not_reloaded = str(e)
                log.error("the configuration read before stays in force: %s", e)
            if self._listener.certificates is not None:
                await self._listener.certificates.reload()
            self._listener.dismiss()
            self._supervision.reloaded()

    def _apply(self, settings: Config) -> None:
        self._access.load(settings.access)
        logs.set_level(settings.log.level)
        waiting = config.differences(self._settings, settings, but=("access", "log.level"))
        log.info("the roles and the log level were read again")
        if waiting:
            log.warning("changes that wait for a restart: %s", ", ".join(waiting))

    def _status(self) -> str:
        """The line that systemctl status shows."""
        running = sum(vm.running for vm in self._registry.vms())
        down = len(self._registry.vms()) - running
        text = f"VMs: {running} running, {down} down"
        health = self._health()
        return "; ".join([text, *health["reasons"], *health["warnings"]])

    def _health(self) -> dict[str, Any]:
        return health.report(
            self._connection,
            self._watch,
            self._migrations,
            self._missing,
            self._kept_keys.trouble,
            self._clusters,
            self._expiry,
            self._not_reloaded,
        )

    async def _metrics(self) -> Page:
        if self._exporter is None:
            self._exporter = await asyncio.to_thread(self._make_exporter)
        return await self._exporter.page()

    def _make_exporter(self) -> Exporter:
        """What daemons that nobody scrapes do without; in a thread, for it is imported here."""
        from vdsmcinder.monitoring.metrics import Exporter, Sources  # noqa: PLC0415

        sources = Sources(
            self._health,
            self._dispatcher,
            self._listener,
            self._events,
            self._connection,
            self._registry,
            self._secrets,
            self._host,
            self._clusters,
            self._migrations,
        )
        return Exporter(sources)


def _prepare_process() -> None:
    """Let this process have many connections, and switch threads as often as they need it."""
    limit_read_buffers()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _read_config(path: Path | None) -> Config:
    """The file of that path, or the default one, or the built-in values if there is none."""
    if path is not None:
        return config.load(path)
    return config.load(config.DEFAULT_PATH) if config.DEFAULT_PATH.exists() else Config()


class _Parser(argparse.ArgumentParser):
    """argparse, but what is wrong takes one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = _Parser(
        prog="vdsm-cinderd",
        description="Host daemon for oVirt virtual machines whose disks are on Ceph.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"YAML file (default: {config.DEFAULT_PATH}, or built-in values if there is none)",
    )
    parser.add_argument(
        "--show-config",
        action="store_true",
        help="print the configuration in force, with every option documented, and exit",
    )
    version = f"vdsm-cinderd {vdsmcinder.__version__}"
    parser.add_argument("--version", action="version", version=version)
    return parser


if __name__ == "__main__":
    sys.exit(main())
