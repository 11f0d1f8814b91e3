# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be seen of the documentation without running it: blocks, links, targets, outputs.

tests/functional/test_docs.py runs its commands.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lxml import etree

from tests import pages
from tests.pages import (
    CHANGELOG,
    GENERATED,
    PAGES,
    REPOSITORY,
    BadPage,
    Block,
    Command,
    Kind,
    Place,
)
from vdsmcinder.ceph.fault_kinds import Kind as Kinds

MAKE_TARGET = re.compile(r"^([a-z-]+):", re.M)


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in pages.blocks(page)]


def in_a_clone() -> Iterator[Command]:
    for block in all_blocks():
        if block.kind is Kind.CONSOLE and block.place is Place.CLONE:
            yield from pages.commands(block)


def the_page(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pages, "REPOSITORY", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return page


# The documentation


def test_every_page_is_read_and_can_be_found() -> None:
    found = {*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")}
    assert found == {*PAGES, *GENERATED, CHANGELOG}
    linked = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [
        page.name for page in found if f"{page.name})" not in linked and page.parent.name == "docs"
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_stands_in_a_block_of_an_unknown_kind(page: Path) -> None:
    for block in pages.blocks(page):
        if block.kind is Kind.CONSOLE:
            assert pages.commands(block), block.where
        elif block.excerpt_of:
            assert block.text in block.excerpt_of.read_text(encoding="utf-8"), block.where
        else:
            parse(block)
    # Nor in one without fences, which no test would see.
    prose = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert re.findall(r"^(?: {4}|\t).*", prose, re.M) == []


def parse(block: Block) -> None:
    if block.kind is Kind.JSON:
        json.loads(block.text)
    elif block.kind is Kind.YAML:
        yaml.safe_load(block.text)
    elif block.kind is Kind.XML:
        etree.fromstring(block.text)
    elif block.kind is Kind.PYTHON:
        ast.parse(block.text)


def test_commands_for_a_clone_name_what_is_there() -> None:
    makefiles = [REPOSITORY / "Makefile", REPOSITORY / "packaging/packaging.mk"]
    targets = {name for file in makefiles for name in MAKE_TARGET.findall(file.read_text())}
    commands = list(in_a_clone())
    assert commands
    for command in commands:
        program, *words = shlex.split(command.text)
        if program == "make":
            assert {w for w in words if "=" not in w} <= targets, command.where
        elif program != "git":
            # Of the repository, or put into its environment by `make setup`.
            assert program.startswith(".venv/bin/"), command.where
            assert (REPOSITORY / program).exists(), command.where
            for word in words:
                path, _, test = word.partition("::")
                if path.startswith(("tests/", "lab/", "bench/", "docs/", "vdsmcinder/")):
                    assert (REPOSITORY / path).exists(), command.where
                    assert test in (REPOSITORY / path).read_text(), command.where


QUICK = ("make help",)


def test_quick_commands_for_a_clone_print_what_is_shown() -> None:
    found = {command.text: command for command in in_a_clone() if command.text in QUICK}
    assert set(found) == set(QUICK)
    # As a reader types it, although `make check` may have started this.
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    for command in found.values():
        done = subprocess.run(
            command.text,
            shell=True,
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert pages.fault(command, done.returncode, done.stdout) == ""


def test_the_demo_prints_the_steps_that_the_readme_shows() -> None:
    (block,) = (b for b in all_blocks() if b.kind is Kind.TEXT and "✔" in b.text)
    shown = re.findall(r"^✔ (.*?) +[\d.]+ s$", block.text, re.M)
    parts = ("demo/__main__", "demo/stage", "lifecycle", "fetching")
    known = [title for name in parts for title in step_titles(f"lab/{name}.py")]
    # The other demo is the one that has Cinder.
    titles = [title for title in known if not title.startswith("Cinder")]
    assert len(titles) == len(known) - 2
    assert len(shown) == len(titles)
    for line in shown:
        assert any(re.fullmatch(title, line) for title in titles), line


def step_titles(path: str) -> Iterator[str]:
    """Patterns of the titles of steps that the code takes."""
    literals: dict[str, ast.expr] = {}
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            literals[node.targets[0].id] = node.value
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("step", "_step"):
            title = node.args[0]
            yield from pattern(literals.get(title.id) if isinstance(title, ast.Name) else title)


def pattern(title: ast.expr | None) -> Iterator[str]:
    if isinstance(title, ast.Constant):
        yield re.escape(str(title.value))
    elif isinstance(title, ast.JoinedStr):
        parts = (
            re.escape(str(v.value)) if isinstance(v, ast.Constant) else ".*" for v in title.values
        )
        yield "".join(parts)


@pytest.mark.parametrize("page", (*PAGES, *GENERATED, CHANGELOG), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_operators_page_quotes_what_the_code_says() -> None:
    said = "\n".join(sentences())
    page = (REPOSITORY / "docs/operator.md").read_text(encoding="utf-8")
    section = page[page.index("## When something is wrong") :]
    quoted = re.findall(r"^\| `([^`]+ [^`]+)` \|", section, re.M)
    assert len(quoted) > 10
    assert [words for words in quoted if words not in said] == []


def test_the_page_on_storage_has_every_cause() -> None:
    page = (REPOSITORY / "docs/storage.md").read_text(encoding="utf-8")
    causes = dict(re.findall(r"^\| `([^`]+)`.*? \| (\d*) ?\| .+ \|$", page, re.M))
    for kind in Kinds:
        cause = kind.cause.format(user="cinder", text="volumes")
        if kind is Kinds.SILENT:
            cause = "no Ceph monitor can be reached from this host: "
        (code,) = [code for told, code in causes.items() if told.startswith(cause)]
        assert code == (str(kind.error.code) if kind.error else ""), cause


def sentences() -> Iterator[str]:
    """The literal parts of all texts in the code."""
    for path in (REPOSITORY / "vdsmcinder").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


# The rules for it


def test_what_may_differ_does_not_count() -> None:
    shown = ("id 6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47 at 17:43:01, 4096 bytes,  0.5 s",)
    assert pages.matches(
        shown, "id 00000000-0000-0000-0000-000000000000 at 09:00:59, 123 bytes, 1.25 s\n"
    )
    assert not pages.matches(shown, "id 6a1c52a8 at 17:43:01, 4096 bytes, 0.5 s\n")
    assert not pages.matches(("code 41",), "code 40\n")
    assert not pages.matches(("a",), "a\nb\n")


def test_what_is_left_out_may_be_anything() -> None:
    assert pages.matches(("{", "…", "}"), "{\n1\n2\n}\n")
    assert pages.matches(("{", "…", "}"), "{\n}\n")
    assert pages.matches(("pid …, up",), "pid 7, up\n")
    assert not pages.matches(("pid …, up",), "pid 7, down\n")
    assert not pages.matches(("{", "…", "}"), "{\n1\n2\n")


def test_commands_go_on_over_open_quotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "```console\n$ echo 'a\nb'\na\nb\n# one \\\n  two\n```\n"
    (block,) = pages.blocks(the_page(text, tmp_path, monkeypatch))
    first, second = pages.commands(block)
    assert (first.text, first.shown, first.line) == ("echo 'a\nb'", ("a", "b"), 2)
    assert (second.text, second.shown, second.line) == ("one \\\n  two", (), 6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```sh\nls\n```\n", "'sh' is no kind of block"),
        ("```console moon\n$ ls\n```\n", "'moon' is no place"),
        ("```console\n$ ls\n", "no end"),
        ("```console\nls\n```\n", "line 1 is no command"),
    ],
)
def test_what_no_rule_covers_is_refused(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadPage, match=re.escape(words)):
        for block in pages.blocks(the_page(text, tmp_path, monkeypatch)):
            pages.commands(block)


def test_a_command_that_shows_nothing_must_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "```console\n$ true\n$ false\nno\n```\n"
    (block,) = pages.blocks(the_page(text, tmp_path, monkeypatch))
    silent, shown = pages.commands(block)
    assert pages.fault(silent, 0, "said\n") == ""
    assert "code 1" in pages.fault(silent, 1, "")
    assert pages.fault(shown, 1, "no\n") == ""
    assert "yes" in pages.fault(shown, 0, "yes\n")
