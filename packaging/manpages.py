# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man pages, from the parsers behind --help and the configuration.

Run by packaging/install: python manpages.py DIRECTORY, which holds man1, man5 and man8. The pages
use the macros of man(7).
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Set
from pathlib import Path

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
    for page, content in pages.items():
        name, section = page[:-1].split("(")
        head = f'.TH {name.upper()} {section} "" "vdsm-cinder {__version__}"\n'
        text = head + content + _section("see also", _text(SEE_ALSO[page]))
        (Path(sys.argv[1]) / f"man{section}" / f"{name}.{section}").write_text(
            text, encoding="utf-8"
        )


def _daemon() -> str:
    parser = daemon.build_parser()
    return (
        _name("vdsm-cinderd", parser.description)
        + _section("synopsis", _synopsis(parser))
        + _section("description", _text(SERVICE))
        + _section("options", _options(parser))
        + _section("signals", "".join(_item(*signal) for signal in SIGNALS.items()))
        + _section("exit status", "".join(_item(*exit) for exit in EXITS.items()))
        + _section("files", "".join(_item(*file) for file in FILES.items()))
    )


def _client() -> str:
    parser = cli.build_parser()
    common = {option for action in parser._actions for option in action.option_strings}
    described = "".join(_command(command, common) for command in _commands(parser))
    return (
        _name("vdsm-cinder", parser.description)
        + _section("synopsis", _synopsis(parser))
        + _section("options", _options(parser))
        + _section("commands", described)
        + _section("exit codes and examples", f".nf\n{_roff(parser.epilog or '')}.fi\n")
    )


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """All commands, and in place of one that has commands of its own, those."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                command = action.choices[choice.dest]
                found += _commands(command) or [command]
    return found


def _command(command: argparse.ArgumentParser, common: Set[str]) -> str:
    usage = command.format_usage().partition("usage: ")[2].strip()
    return f".SS {_roff(usage)}\n{_text(command.description)}{_options(command, common)}"


def _configuration() -> str:
    sections = ""
    for section in dataclasses.fields(config.Config):
        values = getattr(config.Config(), section.name)
        sections += f".SS {section.name}\n{_text(values.__doc__)}"
        for option in dataclasses.fields(values):
            default = yaml.safe_dump(getattr(values, option.name)).splitlines()[0]
            choices = option.metadata.get("choices")
            doc = option.metadata["doc"] + (f" One of: {', '.join(choices)}." if choices else "")
            sections += _item(f"{option.name}: {default}", doc)
    about = "YAML. Every section and option may be left out; the values shown are the defaults."
    return (
        _name("vdsm-cinder.yaml", "Configuration of vdsm-cinderd.")
        + _section("synopsis", _text(str(config.DEFAULT_PATH)))
        + _section("description", _text(about))
        + _section("options", sections)
    )


def _name(name: str, about: str | None) -> str:
    about = (about or "").strip().rstrip(".")
    return _section("name", f"{name} \\- {_roff(about[0].lower() + about[1:])}\n")


def _section(title: str, body: str) -> str:
    return f".SH {title.upper()}\n{body}"


def _synopsis(parser: argparse.ArgumentParser) -> str:
    return _text(" ".join(parser.format_usage().partition("usage: ")[2].split()))


def _options(parser: argparse.ArgumentParser, known: Set[str] = frozenset()) -> str:
    return "".join(
        _item(_term(action), action.help or "")
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction)
        and known.isdisjoint(action.option_strings)
    )


def _term(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    names = ", ".join(action.option_strings) or value
    return f"{names} {value}" if action.option_strings and action.nargs != 0 else names


def _item(term: str, text: str) -> str:
    return f".TP\n.B {_roff(term)}\n{_text(text)}"


def _text(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return ".PP\n".join(f"{_roff(' '.join(p.split()))}\n" for p in paragraphs)


def _roff(text: str) -> str:
    """Text in which nothing is taken for a request or an escape of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


if __name__ == "__main__":
    main()
