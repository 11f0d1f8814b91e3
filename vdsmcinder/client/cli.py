# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's command, vdsm-cinder: its words, its help and its exit codes.

The entry point is main(). What is wrong is one line on stderr; what commands do is in
client/commands.py.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vdsmcinder import __version__
from vdsmcinder.client import commands, tables
from vdsmcinder.client.exit_codes import INTERRUPTED, OK, REFUSED, USAGE, CommandFailed
from vdsmcinder.client.join import words as join_words
from vdsmcinder.client.pki import words
from vdsmcinder.config import DEFAULT_PATH, Listen
from vdsmcinder.errors import RemoteError

EPILOG = """\
exit codes:
  0    done
  1    the daemon refused, or a file or stdin holds something that cannot be used
  2    the words on the command line are wrong
  3    the daemon cannot be reached
  4    pki show: a certificate expires soon
  5    pki show: a certificate has expired, or is not valid yet
  6    doctor: nothing is wrong, but there are warnings, or not all could be checked
  7    doctor: something is wrong
  130  interrupted

examples:
  vdsm-cinder doctor
  vdsm-cinder vms
  vdsm-cinder call VM.create vmID=6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47 vmParams=@web.json
  vdsm-cinder call VM.create --help
  ceph auth get-key client.cinder | vdsm-cinder register-secret UUID
  vdsm-cinder --host node7 --cert me.pem --key me.key --ca ca.pem events --json
"""

Run = Callable[[argparse.Namespace], None]
Add = Callable[..., argparse.ArgumentParser]  # adds a command: name, run, about, operands


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these words, those of the process by default; returns its exit code."""
    # A terminal that cannot show a character gets a question mark.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        args = parse(argv)
        args.run(args)
        sys.stdout.flush()
    except (CommandFailed, RemoteError) as e:
        print(f"vdsm-cinder: {tables.printable(' '.join(str(e).split()))}", file=sys.stderr)
        return e.exit_code if isinstance(e, CommandFailed) else REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output, such as head, has seen enough. Python would complain at exit
        # that what is left cannot be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The words as a namespace; ends the process with code 2 if they are wrong, 0 after help."""
    parser = build_parser()
    # The script of the completion runs us so.
    if "_ARGCOMPLETE" in os.environ:
        from vdsmcinder.client import completion  # noqa: PLC0415  the schema takes long to load

        completion.complete(parser)
    args, rest = parser.parse_known_args(argv)
    # argparse takes no more positional words after an option: call VERB --json name=value.
    if args.command == "call" and not any(word.startswith("-") for word in rest):
        args.parameters += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def build_parser() -> argparse.ArgumentParser:
    """The parser of all words; what is common to the commands may stand before or after them."""
    parser = _Parser(
        prog="vdsm-cinder",
        usage="vdsm-cinder [OPTION...] COMMAND ...",
        description="See and control the virtual machines of this host through vdsm-cinderd.",
        epilog=EPILOG,
        formatter_class=_help_formatter,
        parents=[_common()],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vdsm-cinder {__version__}")
    parser.set_defaults(
        socket=Listen.unix_socket,
        host=None,
        cert=Listen.certificate,
        key=Listen.key,
        ca=Listen.ca,
        json=False,
        timeout=120.0,
    )
    sub = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="command", prog="vdsm-cinder"
    )

    def add(name: str, run: Run, about: str, operands: str = "", **more: Any) -> _Parser:
        command = sub.add_parser(
            name,
            help=about,
            usage=f"vdsm-cinder {name} [OPTION...] {operands}".rstrip(),
            description=f"{about[0].upper()}{about[1:]}.",
            formatter_class=_help_formatter,
            parents=[_common()],
            allow_abbrev=False,
            **more,
        )
        command.set_defaults(run=run)
        return command

    _add_listings(add)
    _add_calls(add)
    _add_secrets(add)
    _add_doctor(add)
    words.add(sub, _Parser, _help_formatter)
    join_words.add(sub, _help_formatter)
    completion = add("completion", commands.completion, "print a completion script", "bash|zsh")
    completion.add_argument(
        "shell", metavar="bash|zsh", choices=("bash", "zsh"), help="the shell that reads it"
    )
    return parser


def _add_listings(add: Add) -> None:
    vms = add("vms", commands.list_vms, "list the host's VMs")
    vms.add_argument("--long", "-l", action="store_true", help="show ids in full")
    disks = add(
        "disks", commands.list_disks, "list the disks of a VM; ms is the mean latency", "VM"
    )
    disks.add_argument("vm", metavar="VM", help="its id, the beginning of its id, or its name")
    add("secrets", commands.list_secrets, "list the registered secrets, never their values")
    add("events", commands.events, "print events as they come, until interrupted")


def _add_calls(add: Add) -> None:
    call = add("call", commands.call, "call any verb", "VERB [NAME=VALUE...]", add_help=False)
    # Our own -h: with a verb it tells what the schema says of that verb.
    call.add_argument("-h", "--help", action="store_true", help="show this; with VERB, about VERB")
    call.add_argument(
        "verb", metavar="VERB", nargs="?", help="such as VM.create; see vdsm-cinder verbs"
    )
    call.add_argument(
        "parameters",
        metavar="NAME=VALUE",
        nargs="*",
        help="a parameter: text, or JSON where it is no single value; NAME=@FILE takes what FILE "
        "holds and NAME=@- what stdin holds, which secret ones require",
    )
    call.set_defaults(print_help=call.print_help)
    verbs = add("verbs", commands.verbs, "list the verbs, or show one in full", "[VERB]")
    verbs.add_argument("verb", metavar="VERB", nargs="?", help="the one to show")
    drive = add(
        "drive-xml", commands.drive_xml, "print a drive's libvirt XML; needs no daemon", "[FILE]"
    )
    drive.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="a device description or Cinder's connection info, as JSON; stdin by default",
    )
    drive.add_argument(
        "--secret",
        metavar="UUID",
        help="what a connection info without secret_uuid takes, as vms.cinder_secret_uuid would",
    )


def _add_secrets(add: Add) -> None:
    register = add(
        "register-secret", commands.register_secret, "hand a key to libvirt", "UUID [FILE]"
    )
    register.add_argument("uuid", metavar="UUID", help="id of the secret")
    register.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="-",
        help="a keyring, or the key alone; stdin by default, asked for on a terminal",
    )
    register.add_argument(
        "--usage-type",
        metavar="TYPE",
        choices=("ceph", "volume", "iscsi"),
        default="ceph",
        help="ceph, volume or iscsi; ceph by default",
    )
    register.add_argument("--usage-id", metavar="ID", help="ovirt/UUID by default")
    register.add_argument("--description", metavar="TEXT", help="what it is for")
    unregister = add(
        "unregister-secret", commands.unregister_secret, "take keys from libvirt", "UUID..."
    )
    unregister.add_argument("uuids", metavar="UUID", nargs="+", help="ids of secrets")


def _add_doctor(add: Add) -> None:
    doctor = add("doctor", commands.doctor, "check all that VMs on Ceph need of this host", "[VM]")
    doctor.add_argument(
        "vm",
        metavar="VM",
        nargs="?",
        help="check its disks too: its id, the beginning of its id, or its name",
    )
    doctor.add_argument(
        "--disk",
        metavar="FILE",
        help="check this disk too: a device description or Cinder's connection info, as JSON",
    )
    doctor.add_argument(
        "--keyring",
        metavar="FILE",
        help="open the disks with the key in it, in place of the one that the daemon has",
    )
    doctor.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the daemon's configuration ({DEFAULT_PATH})",
    )


class _Parser(argparse.ArgumentParser):
    """argparse, but what is wrong takes one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"vdsm-cinder: {message}; see {self.prog} --help\n")


def _help_formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=96)


def _common() -> _Parser:
    """The options that all commands have, for each a parser of its own. Without defaults, or those
    of a command would undo what was given before its name."""
    parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("common options")
    group.add_argument("--json", action="store_true", help="print JSON, for scripts")
    group.add_argument(
        "--timeout", type=_seconds, metavar="S", help="seconds to wait for an answer (120)"
    )
    group.add_argument(
        "--socket", metavar="PATH", help=f"the daemon's socket ({Listen.unix_socket})"
    )
    group.add_argument("--host", metavar="ADDRESS[:PORT]", help="a daemon elsewhere, by TLS")
    group.add_argument("--cert", metavar="FILE", help="our certificate for --host, PEM")
    group.add_argument("--key", metavar="FILE", help="its private key, PEM")
    group.add_argument("--ca", metavar="FILE", help="the CA that signed the daemon's, PEM")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds up to 86400")
    return value


if __name__ == "__main__":
    sys.exit(main())
