# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `python -m lab`: starts the lab, ends it, tells about it, runs commands in it.

`python -m lab --help` lists what it can.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from types import FrameType

from lab import ansible, several
from lab.base import REPOSITORY, LabError, run
from lab.cinder.server import PROJECT
from lab.fetching import fetch
from lab.lifecycle import down, down_keeping_logs, kept_logs, up
from lab.namespace import CLEAN_ENVIRONMENT
from lab.running import Lab
from lab.steps import Steps

BUNDLED = "build/bundled"
# All that pip and packaging/retry try until they give up.
BUNDLING_TIMEOUT_S = 600


def main() -> int:
    """Run one sub-command; 0, or 1 with one sentence on stderr, or 130 if interrupted."""
    arguments = _parse()
    try:
        return int(arguments.run(arguments))
    except LabError as error:
        print(f"lab: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; nothing is left running.", file=sys.stderr)
        return 130


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="A real Ceph and real hypervisors on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    start = commands.add_parser("up", help="start the lab in the background")
    _add_hosts(start, default=1)
    start.add_argument(
        "--cinder", action="store_true", help="with a Cinder, whose packages are fetched if need be"
    )
    start.set_defaults(run=_up)
    commands.add_parser(
        "fetch", help="fetch what the lab takes from the network, Cinder's packages too"
    ).set_defaults(run=_fetch)
    end = commands.add_parser("down", help="end the lab and leave nothing")
    end.add_argument("--keep-logs", action="store_true", help="leave its logs, and say where")
    end.set_defaults(run=_down)
    commands.add_parser("status", help="tell what runs").set_defaults(run=_status)
    execute = commands.add_parser("exec", help="run a command in the engine's place or on a host")
    execute.add_argument(
        "--host", metavar="NAME", help="on this hypervisor instead of the engine's place"
    )
    _add_command(execute)
    execute.set_defaults(run=_exec)
    enclose = commands.add_parser(
        "run", help="run a command in the engine's place of a lab that is started for it, or runs"
    )
    _add_hosts(enclose, default=2)
    enclose.add_argument(
        "--labs",
        type=int,
        default=1,
        choices=range(1, 5),
        metavar="N",
        help="unless one runs, so many labs for pytest to spread tests over (default: 1)",
    )
    _add_command(enclose)
    enclose.set_defaults(run=_run)
    return parser.parse_args()


def _add_hosts(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--hosts",
        type=int,
        default=default,
        choices=range(1, 10),
        metavar="N",
        help=f"hypervisors host1 … hostN (default: {default})",
    )


def _add_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "argv", nargs="+", metavar="CMD", help="after --, the command and its arguments"
    )


def _up(arguments: argparse.Namespace) -> int:
    _bundle()
    _tell(_start(arguments.hosts, with_cinder=arguments.cinder))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if _one_runs():
        return _exec(argparse.Namespace(host=None, argv=arguments.argv))
    _bundle()
    if arguments.labs > 1:
        return _run_in_several(arguments)
    lab = _start(arguments.hosts)
    code = 1
    try:
        code = subprocess.run(lab.engine_command(arguments.argv), check=False).returncode
    finally:
        if code == 0:
            down()
        else:
            print(f"lab: the logs are in {down_keeping_logs()}.", file=sys.stderr)
    return code


def _run_in_several(arguments: argparse.Namespace) -> int:
    _be_interruptible()
    return several.run_in(arguments.labs, arguments.hosts, arguments.argv, Steps())


def _one_runs() -> bool:
    try:
        Lab.attach()
    except LabError:
        return False
    return True


def _start(host_count: int, *, with_cinder: bool = False) -> Lab:
    _be_interruptible()
    steps = Steps()
    try:
        return up(host_count, steps, with_cinder=with_cinder)
    except LabError as error:
        if steps.failed is None:
            raise
        logs = f"; its logs are in {kept_logs()}" if kept_logs().exists() else ""
        raise LabError(
            f"the lab was not started, because '{steps.failed}' failed: {error}{logs}"
        ) from None


def _fetch(_: argparse.Namespace) -> int:
    _bundle()
    steps = Steps()
    fetch(steps, with_cinder=True)
    with steps.step("Ansible, with oVirt's collection") as step:
        ansible.fetch(step)
    return 0


def _bundle() -> None:
    """Fetch what our packages bundle: on a host of the lab, `make install` reaches no network."""
    run(["make", "--directory", REPOSITORY, BUNDLED], BUNDLING_TIMEOUT_S)


def _down(arguments: argparse.Namespace) -> int:
    if arguments.keep_logs:
        print(f"lab: the logs are in {down_keeping_logs()}.")
        return 0
    print("The lab has ended; nothing is left." if down() else "No lab was running.")
    return 0


def _status(_: argparse.Namespace) -> int:
    lab = Lab.attach()
    _tell(lab)
    print(f"Monitors running: {' '.join(lab.ceph.running_mons())}. Ceph: {lab.ceph.health()}.")
    for host in lab.hosts.values():
        print(f"VMs on {host.name}: {' '.join(host.virsh('list', '--name').split()) or 'none'}.")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    lab = Lab.attach()
    if arguments.host is None:
        command = lab.engine_command(arguments.argv)
        os.execvp(command[0], command)
    host = lab.hosts.get(arguments.host)
    if host is None:
        raise LabError(f"there is no host {arguments.host}: the hosts are {', '.join(lab.hosts)}")
    environment = {**CLEAN_ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    process = host.popen(arguments.argv, env=environment)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: process.send_signal(received))
    code = process.wait()
    return 128 - code if code < 0 else code


def _tell(lab: Lab) -> None:
    ceph = lab.ceph
    monitors = " ".join(monitor.address for monitor in ceph.monitors)
    print(f"\nThe lab runs as process {lab.first_pid}, its files are in {lab.directory}.")
    print(f"  monitors     {monitors} (ports 3300 and 6789), pool {ceph.pool}, user {ceph.user}")
    for host in lab.hosts.values():
        print(f"  {host.name:<12} {host.address}, {host.uri}")
    print(f"  ceph         python -m lab exec -- ceph --conf {ceph.conf} status")
    print("  a host       python -m lab exec --host host1 -- virsh list --all")
    if lab.cinder.runs:
        print(f"  Cinder       {lab.cinder.url}, header X-Auth-Token: lab:{PROJECT}")
    print("  the tests    python -m lab exec -- .venv/bin/pytest tests/functional")
    print("  the end      python -m lab down")


def _be_interruptible() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_: int, __: FrameType | None) -> None:
    # Once is enough: a second one must not break off the cleaning up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
