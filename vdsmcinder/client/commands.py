# SPDX-License-Identifier: GPL-2.0-or-later
"""What each command of vdsm-cinder does: one function each, from parsed words to printed lines.

Each prints a table for people, or JSON where --json is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from vdsmcinder.client import secrets, sources, tables, vms
from vdsmcinder.client.exit_codes import CommandFailed, InputRefused, UsageError
from vdsmcinder.client.session import Session, connect
from vdsmcinder.client.tables import DIM, GREEN, NOTHING, RED, YELLOW, Column
from vdsmcinder.errors import VdsmCinderError

STATUS_COLOURS = (("Up", GREEN), ("Down", RED), ("Paused", YELLOW))


def call(args: argparse.Namespace) -> None:
    """Call any verb and print its result as JSON."""
    if args.verb is None and args.help:
        args.print_help()
        return
    if args.verb is None:
        raise UsageError("call needs a verb; vdsm-cinder verbs lists them")
    # The schema costs some 60 ms to load, which only the commands that need it pay.
    from vdsmcinder.client import arguments, verbhelp  # noqa: PLC0415
    from vdsmcinder.rpc.schema import schema  # noqa: PLC0415

    verb = verbhelp.named(schema.load(), args.verb)
    if args.help:
        print(verbhelp.page(verb))
        return
    parameters = arguments.parameters(verb, args.parameters)
    with _session(args) as session:
        result = session.call(verb.name, parameters)
    if args.json:
        _print_json(result)
    else:
        print(json.dumps(result, indent=2, ensure_ascii=False))


def verbs(args: argparse.Namespace) -> None:
    """List the verbs, or show all that the schema says of one."""
    from vdsmcinder.client import verbhelp  # noqa: PLC0415  see call()
    from vdsmcinder.rpc.schema import schema  # noqa: PLC0415

    contract = schema.load()
    chosen = contract.served if args.verb is None else [verbhelp.named(contract, args.verb)]
    if args.json:
        _print_json([verbhelp.as_fields(verb) for verb in chosen])
    elif args.verb is None:
        print(verbhelp.listing(contract))
    else:
        print(verbhelp.page(chosen[0]))


def list_vms(args: argparse.Namespace) -> None:
    """List the host's VMs."""
    with _session(args) as session:
        found = vms.summaries(session)
    if args.json:
        _print_json([dataclasses.asdict(vm) for vm in found])
        return
    columns = [
        Column("ID"),
        Column("NAME", shrinks_to=10),
        Column("STATUS", colours=STATUS_COLOURS),
        Column("CPUS", right=True, dropped=1),
        Column("CPU%", right=True),
        Column("MEMORY", right=True),
        Column("MEM%", right=True, dropped=3),
        Column("DISKS", right=True, dropped=2),
        Column("READ/s", right=True, dropped=5),
        Column("WRITE/s", right=True, dropped=4),
        Column("UPTIME", right=True),
    ]
    rows = [_vm_row(vm, args.long) for vm in found]
    _print_table(columns, rows, "no VMs on this host")
    for vm in found:
        if vm.exit_message:
            print(tables.printable(f"{vm.name}: {vm.exit_message}"))


def _vm_row(vm: vms.VmSummary, long_id: bool) -> Sequence[str]:
    return (
        vm.id if long_id else vm.id[: vms.SHORT_ID],
        vm.name,
        _status(vm),
        str(vm.vcpus),
        tables.percent(vm.cpu_pct),
        tables.size(vm.memory_mib * 1024**2),
        tables.percent(vm.memory_used_pct),
        str(vm.disks),
        tables.size(vm.read_bytes_per_s),
        tables.size(vm.write_bytes_per_s),
        tables.duration(vm.uptime_s),
    )


def _status(vm: vms.VmSummary) -> str:
    if vm.migration_pct is not None:
        return f"{vm.status} {vm.migration_pct} %"
    return vm.status if vm.pause_code is None else f"{vm.status} ({vm.pause_code})"


def list_disks(args: argparse.Namespace) -> None:
    """List the disks of one VM."""
    with _session(args) as session:
        found = vms.disks(session, vms.find(session, args.vm))
    if args.json:
        _print_json([dataclasses.asdict(disk) for disk in found])
        return
    columns = [
        Column("TARGET"),
        Column("DEVICE"),
        Column("SOURCE", shrinks_to=24),
        Column("SIZE", right=True),
        Column("READ/s", right=True),
        Column("ms", right=True, dropped=2),
        Column("WRITE/s", right=True),
        Column("ms", right=True, dropped=1),
    ]
    rows = [
        (
            disk.target,
            _device(disk),
            disk.source or NOTHING,
            tables.size(disk.size_bytes),
            tables.size(disk.read_bytes_per_s),
            tables.milliseconds(disk.read_latency_ns),
            tables.size(disk.write_bytes_per_s),
            tables.milliseconds(disk.write_latency_ns),
        )
        for disk in found
    ]
    _print_table(columns, rows, "this VM has no disks")


def _device(disk: vms.DiskSummary) -> str:
    # A CD is read-only by nature.
    return f"{disk.device} (ro)" if disk.readonly and disk.device != "cdrom" else disk.device


def list_secrets(args: argparse.Namespace) -> None:
    """List the secrets that the daemon has registered with libvirt; never their values."""
    with _session(args) as session:
        found = session.call("Host.getSecrets", {})
    if args.json:
        _print_json(found)
        return
    columns = [Column("UUID"), Column("TYPE"), Column("USAGE", shrinks_to=20)]
    rows = [(secret["uuid"], secret["usageType"], secret["usageID"]) for secret in found]
    _print_table(columns, rows, "no secrets are registered")


def register_secret(args: argparse.Namespace) -> None:
    """Register one secret, its key read from a file, stdin or a prompt."""
    key = secrets.read_key(args.file)
    info = secrets.secret_info(args.uuid, args.usage_type, args.usage_id, args.description, key)
    with _session(args) as session:
        session.call("Host.registerSecrets", {"secrets": [info], "clear": False})
    _print_done(args, f"registered {info['usageType']} secret {args.uuid} as {info['usageID']}")


def unregister_secret(args: argparse.Namespace) -> None:
    """Unregister secrets by their ids."""
    with _session(args) as session:
        session.call("Host.unregisterSecrets", {"uuids": args.uuids})
    _print_done(args, f"unregistered {', '.join(args.uuids)}")


def events(args: argparse.Namespace) -> None:
    """Print each event as it comes, until interrupted."""
    from vdsmcinder.client.events import Narrator  # noqa: PLC0415  only this command needs it

    with _session(args) as session:
        if args.json:
            for event in session.events():
                print(json.dumps(event), flush=True)
            return
        narrator = Narrator(lambda: vms.names(session))
        print(tables.painted("waiting for events; Ctrl-C ends", DIM), file=sys.stderr)
        for event in session.events():
            print(narrator.line(event), flush=True)


def drive_xml(args: argparse.Namespace) -> None:
    """Print the libvirt XML of a drive described as JSON; needs no daemon."""
    # lxml is needed here alone.
    from vdsmcinder.virt.disk import drive_json  # noqa: PLC0415

    description = sources.parse_json(sources.read_text(args.file), sources.named(args.file))
    try:
        xml = drive_json.drive_xml(description, args.secret).rstrip()
    except VdsmCinderError as e:
        raise InputRefused(e.message) from e
    if args.json:
        _print_json(xml)
    else:
        print(xml)


def join(args: argparse.Namespace) -> None:
    """Have this host join an engine."""
    if args.host is not None:
        raise UsageError("a host joins by itself; run this on that host, without --host")
    try:
        from vdsmcinder.client.join import run  # noqa: PLC0415  see pki()
    except ModuleNotFoundError as e:
        raise CommandFailed(
            f"join needs the Python module {e.name}; install python3-cryptography"
        ) from e
    run.join(args)


def pki(args: argparse.Namespace) -> None:
    """Make, renew or show certificates, as args.action says."""
    if args.host is not None:
        raise UsageError(
            "pki works on the files of this machine; run it on that host, without --host"
        )
    try:
        # cryptography takes longer to load than all the rest.
        from vdsmcinder.client.pki import init as certificates  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise CommandFailed(
            f"pki needs the Python module {e.name}; install python3-cryptography"
        ) from e
    certificates.ACTIONS[args.action](args)


def doctor(args: argparse.Namespace) -> None:
    """Check this host, and disks."""
    if args.host is not None:
        raise UsageError("doctor looks at this machine; run it on that host, without --host")
    try:
        # Half of the daemon's code, which no other command needs.
        from vdsmcinder.client.doctor import run as examining  # noqa: PLC0415
    except ModuleNotFoundError as e:
        package = f"python3-{e.name}"
        raise CommandFailed(f"doctor needs the Python module {e.name}; install {package}") from e
    examining.doctor(args)


def completion(args: argparse.Namespace) -> None:
    """Print the script that has a shell complete our words."""
    from vdsmcinder.client import completion as scripts  # noqa: PLC0415  see call()

    print(scripts.script(args.shell), end="")


def _session(args: argparse.Namespace) -> Session:
    return connect(args)


def _print_table(columns: list[Column], rows: Sequence[Sequence[str]], if_none: str) -> None:
    # Nothing to list is told on stderr, so that a pipe gets rows alone.
    if rows:
        print(tables.table(columns, rows))
    else:
        print(if_none, file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def _print_done(args: argparse.Namespace, told: str) -> None:
    if args.json:
        _print_json(True)
    else:
        print(told)
