# SPDX-License-Identifier: GPL-2.0-or-later
"""Man pages in the macros of man(7), from the parsers behind --help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Set
from pathlib import Path


def write(
    directory: Path, pages: Mapping[str, str], see_also: Mapping[str, str], program: str
) -> None:
    """Write pages below a directory that has man1, man5 and man8, as far as they are needed.

    pages: what they say, by their names: 'vdsm-cinder(1)'. program: its name and version.
    """
    for page, content in pages.items():
        name, number = page[:-1].split("(")
        head = f'.TH {name.upper()} {number} "" "{program}"\n'
        whole = head + content + section("see also", paragraphs(see_also[page]))
        (directory / f"man{number}" / f"{name}.{number}").write_text(whole, encoding="utf-8")


def title(name: str, about: str | None) -> str:
    """The section that whatis(1) reads."""
    about = (about or "").strip().rstrip(".")
    return section("name", f"{name} \\- {escaped(about[0].lower() + about[1:])}\n")


def section(name: str, body: str) -> str:
    """A section of a page."""
    return f".SH {name.upper()}\n{body}"


def synopsis(parser: argparse.ArgumentParser) -> str:
    """A parser's usage."""
    return paragraphs(" ".join(parser.format_usage().partition("usage: ")[2].split()))


def commands(parser: argparse.ArgumentParser) -> str:
    """All commands of a parser, each with those of its options that are not the parser's own."""
    common = {option for action in parser._actions for option in action.option_strings}
    return "".join(
        f".SS {escaped(command.format_usage().partition('usage: ')[2].strip())}\n"
        f"{paragraphs(command.description)}{options(command, common)}"
        for command in _below(parser)
    )


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """All commands, and in place of one that has commands of its own, those."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                command = action.choices[choice.dest]
                found += _below(command) or [command]
    return found


def options(parser: argparse.ArgumentParser, known: Set[str] = frozenset()) -> str:
    """The options and arguments of a parser, but for those that are known."""
    return "".join(
        item(_term(action), action.help or "")
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction)
        and known.isdisjoint(action.option_strings)
    )


def _term(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    names = ", ".join(action.option_strings) or value
    return f"{names} {value}" if action.option_strings and action.nargs != 0 else names


def items(described: Mapping[str, str]) -> str:
    """Terms and what they mean."""
    return "".join(item(*each) for each in described.items())


def item(term: str, meaning: str) -> str:
    """One term and what it means."""
    return f".TP\n.B {escaped(term)}\n{paragraphs(meaning)}"


def paragraphs(text: str | None) -> str:
    """Text, filled."""
    found = re.split(r"\n\s*\n", (text or "").strip())
    return ".PP\n".join(f"{escaped(' '.join(each.split()))}\n" for each in found)


def verbatim(text: str | None) -> str:
    """Text whose lines stay as they are."""
    return f".nf\n{escaped(text or '')}.fi\n"


def escaped(text: str) -> str:
    """Text in which nothing is taken for a request or an escape of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)
