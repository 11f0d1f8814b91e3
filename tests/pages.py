# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation as tests read it: fenced blocks, the commands in them, what they should print.

docs/contributing.md tells authors the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Written from what the code declares; tests of that hold them current.
GENERATED = (REPOSITORY / "docs/api.md", REPOSITORY / "docs/rest.md")
CHANGELOG = REPOSITORY / "CHANGELOG.md"
# In the order in which they are run: README.md installs what docs/operator.md removes.
_FIRST = (REPOSITORY / "README.md", REPOSITORY / "docs/engine.md")
_LAST = (REPOSITORY / "docs/operator.md", REPOSITORY / "docs/contributing.md")
_MORE = {*REPOSITORY.glob("docs/*.md")} - {*_FIRST, *_LAST, *GENERATED}
PAGES = (*_FIRST, *sorted(_MORE), *_LAST)

_FENCE = re.compile(r"^( *)```(.*)$")
# What differs between two runs that are both right. Numbers of less than three digits count.
_VARYING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b\d\d\d\d-\d\d-\d\d\b"), "<day>"),
    (re.compile(r"\b[A-Z][a-z]{2} [ \d]\d (?=\d\d:)"), "<day> "),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "<time>"),
    (re.compile(r"\b[0-9a-f]{16}([0-9a-f]{16})?\b"), "<hash>"),
    (re.compile(r"\b\d+\.\d+(?![.\d])"), "<number>"),
    (re.compile(r"(?<![.\w<-])\d{3,}(?![.\w])"), "<number>"),
)


PROMPTS = ("# ", "$ ")


class Place(Enum):
    """Where the commands of a console block are run, by the word behind its kind."""

    HOST = ""  # a hypervisor with what an EL system has, where engine and Ceph can be reached too
    DEBIAN = "debian"  # a hypervisor on which nothing is installed yet
    CLONE = "clone"  # a clone of the repository; looked up, for the tests are run by the same


class Kind(Enum):
    """What a block holds, by the first word behind its fence."""

    CONSOLE = "console"
    PYTHON = "python"
    JSON = "json"
    YAML = "yaml"
    XML = "xml"
    TEXT = "text"  # a picture, or a line of a log: nothing to run


class BadPage(ValueError):
    """Something in a page that no rule covers; the message says where and what."""


@dataclass(frozen=True)
class Block:
    """One fenced block; line is that of its fence, notes are the words behind its kind.

    The notes of a console block are its Place, those of others a file: one of the repository, of
    which it is an excerpt, or one that a reader saves it as.
    """

    page: Path
    line: int
    kind: Kind
    notes: str
    body: tuple[str, ...]

    @property
    def text(self) -> str:
        """What stands between the fences."""
        return "".join(f"{line}\n" for line in self.body)

    @property
    def place(self) -> Place:
        """Where the commands of a console block are run."""
        return Place(self.notes)

    @property
    def saved_as(self) -> str:
        """The file that a reader saves it as; empty if none."""
        return "" if self.kind is Kind.CONSOLE or self.excerpt_of else self.notes

    @property
    def excerpt_of(self) -> Path | None:
        """The file of the repository of which it is an excerpt."""
        return REPOSITORY / self.notes if "/" in self.notes else None

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a console block, and the lines that the page shows as its output."""

    block: Block
    line: int
    text: str
    shown: tuple[str, ...]

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.block.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. Raises BadPage for one of no known kind, or without an end."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            continue
        where = f"{page.relative_to(REPOSITORY)}:{number}"
        word, _, notes = fence[2].partition(" ")
        if word not in {kind.value for kind in Kind}:
            raise BadPage(f"{where}: '{word}' is no kind of block; see docs/contributing.md")
        body = []
        for _, inner in lines:
            if inner == f"{fence[1]}```":
                break
            body.append(inner[len(fence[1]) :])
        else:
            raise BadPage(f"{where}: this block has no end")
        block = Block(page, number, Kind(word), notes, tuple(body))
        if block.kind is Kind.CONSOLE and notes not in {place.value for place in Place}:
            raise BadPage(f"{where}: '{notes}' is no place for commands; see docs/contributing.md")
        yield block


def commands(block: Block) -> list[Command]:
    """The commands of a console block. Raises BadPage for a line that is neither one nor output."""
    found: list[Command] = []
    lines = list(block.body)
    at = 0
    while at < len(lines):
        prompt = lines[at][:2]
        begun = at
        if prompt not in PROMPTS:
            raise BadPage(f"{block.where}: line {at + 1} is no command: begin it with '# ' or '$ '")
        text = lines[at][2:]
        while _unfinished(text):
            at += 1
            text += f"\n{lines[at]}"
        at += 1
        shown = []
        while at < len(lines) and lines[at][:2] not in PROMPTS:
            shown.append(lines[at])
            at += 1
        line = block.line + 1 + begun
        found.append(Command(block, line, text, tuple(shown)))
    return found


def _unfinished(command: str) -> bool:
    """Whether the command goes on in the next line: an open quotation, or a backslash."""
    return command.endswith("\\") or command.count("'") % 2 == 1


def fault(command: Command, code: int, printed: str) -> str:
    """What is wrong with what a command did, in words; empty if nothing is.

    What the page shows must be what was printed. A page that shows nothing promises that the
    command succeeds.
    """
    if command.shown and matches(command.shown, printed):
        return ""
    if not command.shown and code == 0:
        return ""
    wanted = "the page shows" if command.shown else "the page shows no output, so code 0 is due"
    shown = "".join(f"\n    {line}" for line in command.shown)
    got = "".join(f"\n    {line}" for line in printed.splitlines())
    return f"{command.where}: {command.text}\n  {wanted}{shown}\n  but code {code}, and{got}"


def matches(shown: Sequence[str], printed: str) -> bool:
    """Whether a page shows what was printed, but for what may differ from run to run.

    In what is shown, '…' stands for anything on its line, and a line of it alone for any lines.
    Times, uuids, hashes of 16 or 32 hex digits, and numbers of three digits or with a fraction are
    the same as any other of their kind; so are blanks.
    """
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "…" else f"{_pattern(line)}\n" for line in shown
    )
    said = "".join(f"{_same(line)}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, said) is not None


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in _same(line).split("…"))


def _same(line: str) -> str:
    for varying, name in _VARYING:
        line = varying.sub(name, line)
    return " ".join(line.split())
