# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the engine's man pages, from the parser behind --help and the configuration.

Run by packaging/install-engine: python engine_manpages.py DIRECTORY, which holds man5 and man8.
"""

from __future__ import annotations

import sys
from pathlib import Path

import roff
import yaml

from cinderengine import config, main
from vdsmcinder import __version__

SEE_ALSO = {
    "cinder-engine(8)": "cinder-engine.yaml(5), vdsm-cinderd(8)",
    "cinder-engine.yaml(5)": "cinder-engine(8)",
}
SERVICE = """\
systemd runs "cinder-engine serve" as cinder-engine.service, as the user cinder-engine. Hosts and
their virtual machines run on while it restarts, and what it was doing is gone on with.

Before that, "cinder-engine init" makes what it needs. Commands that root runs become the user who
owns the engine's directory, so that all in it stays that user's.
"""
FILES = {
    str(config.DEFAULT_PATH): "Its configuration.",
    config.Directories.state: "Its database, keys and authorities: all that it keeps.",
}
SIGNALS = {
    "SIGTERM, SIGINT": "End within 10 seconds; hosts and their virtual machines run on.",
    "SIGHUP": "Read certificates and log level again, as systemctl reload does.",
    "SIGABRT": "Write the stack of every thread to the log, and end. The watchdog sends it.",
}


def write() -> None:
    """Write all pages."""
    pages = {"cinder-engine(8)": _program(), "cinder-engine.yaml(5)": _configuration()}
    roff.write(Path(sys.argv[1]), pages, SEE_ALSO, f"cinder-engine {__version__}")


def _program() -> str:
    parser = main.build_parser()
    return (
        roff.title("cinder-engine", parser.description)
        + roff.section("synopsis", roff.synopsis(parser))
        + roff.section("description", roff.paragraphs(SERVICE))
        + roff.section("options", roff.options(parser))
        + roff.section("commands", roff.commands(parser))
        + roff.section("signals", roff.items(SIGNALS))
        + roff.section("exit status", roff.verbatim(parser.epilog))
        + roff.section("files", roff.items(FILES))
    )


def _configuration() -> str:
    sections = ""
    for section in config.sections_of(config.Config()):
        sections += f".SS {section.name}\n{roff.paragraphs(section.cls.__doc__)}"
        for option in section.options:
            plain = list(option.value) if isinstance(option.value, tuple) else option.value
            default = yaml.safe_dump(plain).splitlines()[0]
            sections += roff.item(f"{option.name}: {default}", option.help)
    about = "YAML. Every section and option may be left out; the values shown are the defaults."
    return (
        roff.title("cinder-engine.yaml", "Configuration of cinder-engine.")
        + roff.section("synopsis", roff.paragraphs(str(config.DEFAULT_PATH)))
        + roff.section("description", roff.paragraphs(about))
        + roff.section("options", sections)
    )


if __name__ == "__main__":
    write()
