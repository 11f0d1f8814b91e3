# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man pages, from the parsers behind --help and the configuration.

Run by packaging/install: python manpages.py DIRECTORY, which holds man1, man5 and man8.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import roff
import yaml

from vdsmcinder import __version__, config, daemon
from vdsmcinder.client import cli

SEE_ALSO = {
    "vdsm-cinderd(8)": "vdsm-cinder(1), vdsm-cinder.yaml(5), libvirtd(8)",
    "vdsm-cinder(1)": "vdsm-cinderd(8), vdsm-cinder.yaml(5)",
    "vdsm-cinder.yaml(5)": "vdsm-cinderd(8)",
}
SERVICE = """\
systemd runs it as vdsm-cinderd.service and opens its sockets: vdsm-cinderd.socket is the TLS port,
vdsm-cinderd-local.socket the unix socket; listen.address, listen.port and listen.unix_socket count
only without them. Clients wait at the sockets while the daemon restarts, and they are closed when
it is stopped. Virtual machines run on in all cases.

What it logs is in the journal. "journalctl VM_ID=..." tells the story of one virtual machine,
"journalctl FLOW_ID=..." that of one request of the engine.
"""
EXITS = {
    "0": "It was told to end.",
    "2": "The command line or the configuration cannot be used; systemd closes "
    "its sockets and does not try again.",
    "75": "The certificates cannot be used as they are, perhaps because they are being renewed; "
    "systemd tries again, at pauses that grow to 30 s, while clients wait.",
}
FILES = {
    str(config.DEFAULT_PATH): "Its configuration.",
    "/etc/pki/vdsm": "Certificates and keys, as options of section listen name them.",
    config.Listen.unix_socket: "Where root's commands reach it.",
}
SIGNALS = {
    "SIGTERM, SIGINT": "End within 5 seconds; virtual machines run on.",
    "SIGHUP": "Read certificates, roles and log level again, as systemctl reload does.",
    "SIGABRT": "Write the stack of every thread to the log, and end. The watchdog sends it.",
}


def main() -> None:
    """Write all pages."""
    pages = {
        "vdsm-cinderd(8)": _daemon(),
        "vdsm-cinder(1)": _client(),
        "vdsm-cinder.yaml(5)": _configuration(),
    }
    roff.write(Path(sys.argv[1]), pages, SEE_ALSO, f"vdsm-cinder {__version__}")


def _daemon() -> str:
    parser = daemon.build_parser()
    return (
        roff.title("vdsm-cinderd", parser.description)
        + roff.section("synopsis", roff.synopsis(parser))
        + roff.section("description", roff.paragraphs(SERVICE))
        + roff.section("options", roff.options(parser))
        + roff.section("signals", roff.items(SIGNALS))
        + roff.section("exit status", roff.items(EXITS))
        + roff.section("files", roff.items(FILES))
    )


def _client() -> str:
    parser = cli.build_parser()
    return (
        roff.title("vdsm-cinder", parser.description)
        + roff.section("synopsis", roff.synopsis(parser))
        + roff.section("options", roff.options(parser))
        + roff.section("commands", roff.commands(parser))
        + roff.section("exit codes and examples", roff.verbatim(parser.epilog))
    )


def _configuration() -> str:
    sections = ""
    for section in dataclasses.fields(config.Config):
        values = getattr(config.Config(), section.name)
        sections += f".SS {section.name}\n{roff.paragraphs(values.__doc__)}"
        for option in dataclasses.fields(values):
            default = yaml.safe_dump(getattr(values, option.name)).splitlines()[0]
            choices = option.metadata.get("choices")
            doc = option.metadata["doc"] + (f" One of: {', '.join(choices)}." if choices else "")
            sections += roff.item(f"{option.name}: {default}", doc)
    about = "YAML. Every section and option may be left out; the values shown are the defaults."
    return (
        roff.title("vdsm-cinder.yaml", "Configuration of vdsm-cinderd.")
        + roff.section("synopsis", roff.paragraphs(str(config.DEFAULT_PATH)))
        + roff.section("description", roff.paragraphs(about))
        + roff.section("options", sections)
    )


if __name__ == "__main__":
    main()
