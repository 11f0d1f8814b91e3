# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of vdsm-cinder pki: its four actions, their options and their help.

What the actions do is in client/pki/init.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vdsmcinder import config
from vdsmcinder.client import commands
from vdsmcinder.config import Listen

DAYS, CA_DAYS, SOON_DAYS = 398, 3650, 30
OWNER = "vdsm-cinder"

ABOUT = "certificates for hosts without an engine: make, renew, show"
INIT = "make a CA, and certificates for this host and for a client, with their keys"
HOSTS = "make a CA for hosts alone, and certificates for a host's daemon, libvirt and QEMU"
RENEW = "renew the host's and the client's certificate, with the keys that they have"
SHOW = "show certificates and how long they last; fails if one expires soon"


def add(
    commands_of: Any, parser: type[argparse.ArgumentParser], formatter: Callable[[str], Any]
) -> None:
    """Add the command to those that there are (argparse's name for them: subparsers)."""
    pki = commands_of.add_parser(
        "pki",
        help=ABOUT,
        usage="vdsm-cinder pki init|hosts|renew|show [OPTION...]",
        description=f"{ABOUT[0].upper()}{ABOUT[1:]}.",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    pki.set_defaults(run=commands.pki)
    actions = pki.add_subparsers(
        title="actions", metavar="ACTION", required=True, dest="action", prog="vdsm-cinder pki"
    )

    def action(name: str, about: str, operands: str = "") -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(
            name,
            help=about,
            usage=f"vdsm-cinder pki {name} [OPTION...] {operands}".rstrip(),
            description=f"{about[0].upper()}{about[1:]}.",
            formatter_class=formatter,
            parents=[_where(parser)],
            allow_abbrev=False,
        )
        return added

    _add_init(action("init", INIT))
    _add_hosts(action("hosts", HOSTS))
    _add_renew(action("renew", RENEW))
    show = action("show", SHOW, "[FILE...]")
    show.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        nargs="*",
        help="PEM files to show, in place of those that the daemon uses",
    )
    show.add_argument(
        "--within",
        type=_days,
        metavar="DAYS",
        default=SOON_DAYS,
        help=f"how many days are soon ({SOON_DAYS})",
    )


def _add_init(init: argparse.ArgumentParser) -> None:
    _add_names(init, "all that this machine knows of itself")
    init.add_argument(
        "--client", metavar="NAME", default="operator", help="what the client is called (operator)"
    )
    _add_lives(init)
    _add_ca_from(init)
    init.add_argument(
        "--owner",
        metavar="USER",
        default=OWNER,
        help=f"who alone may read the host's key: the user that the daemon runs as ({OWNER})",
    )
    init.add_argument(
        "--force", action="store_true", help="replace keys and certificates that exist"
    )


def _add_hosts(hosts: argparse.ArgumentParser) -> None:
    _add_names(hosts, "all that this machine knows of itself")
    _add_lives(hosts)
    hosts.add_argument(
        "--ca-from",
        type=Path,
        metavar="DIR",
        help="have the hosts' CA that pki hosts --dir DIR made sign: several hosts, one CA",
    )
    hosts.add_argument(
        "--install",
        action="store_true",
        help="put them where libvirt and QEMU look, and let in hosts' libvirt alone "
        "(tls_allowed_dn_list); those that are there if they are",
    )
    hosts.add_argument(
        "--root", type=Path, metavar="DIR", default=Path("/"), help="where etc is (/)"
    )
    hosts.add_argument(
        "--force", action="store_true", help="make certificates and keys anew; the CA stays"
    )


def _add_renew(renew: argparse.ArgumentParser) -> None:
    _add_names(renew, "those that it has")
    _add_lives(renew)
    _add_ca_from(renew)
    renew.add_argument(
        "--within",
        type=_days,
        metavar="DAYS",
        help="only what expires in so many days; for a timer",
    )
    renew.add_argument("--new-keys", action="store_true", help="replace the keys too")
    renew.add_argument(
        "--with-ca",
        action="store_true",
        help="renew the CA's certificate too; with its key, so that what it signed stays valid",
    )
    renew.add_argument(
        "--reload", action="store_true", help="have vdsm-cinderd take them at once, by systemctl"
    )


def _add_names(action: argparse.ArgumentParser, default: str) -> None:
    action.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        help=f"a name or address of the host, again for each; the first is its common name "
        f"({default})",
    )


def _add_ca_from(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--ca-from",
        type=Path,
        metavar="DIR",
        help="have the CA that pki init --dir DIR made sign: several hosts, one CA",
    )


def _add_lives(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--days", type=_days, default=DAYS, help=f"how long certificates are valid ({DAYS})"
    )
    action.add_argument(
        "--ca-days", type=_days, metavar="DAYS", default=CA_DAYS, help=f"the CA's ({CA_DAYS})"
    )


def _where(parser: type[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """What all actions have; without defaults for what may stand before the command too."""
    options = parser(add_help=False)
    group = options.add_argument_group("common options")
    group.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for scripts"
    )
    group.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="where they are: DIR/certs and DIR/keys, named as on an oVirt host "
        f"(the paths that the daemon's configuration names: {Listen.certificate}, ...)",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the daemon's configuration ({config.DEFAULT_PATH})",
    )
    return options


def _days(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= 36500):
        raise argparse.ArgumentTypeError(f"{text} is not a number of days up to 36500")
    return int(text)
