# SPDX-License-Identifier: GPL-2.0-or-later
"""What units, scriptlets and the code call of other programs, the packages require."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = REPOSITORY / "vdsm-cinder.spec"
# Where each command comes from, on EL.
PACKAGES = {
    **dict.fromkeys(("chown", "mkdir", "sleep", "test", "true"), "coreutils"),
    **dict.fromkeys(("systemctl", "systemd-sysusers", "systemd-tmpfiles"), "systemd"),
    **dict.fromkeys(("ip", "ss"), "iproute"),
    "grep": "grep",
    "sh": "bash",
}
GRAMMAR = {"!", "do", "done", "else", "exec", "fi", "for", "if", "then", "while"}
# The shell's own.
SHELL = {"[", "eval", "exit", "kill", "test"}
# Calls whose program is known when they are made, and what comes of that.
KNOWN_LATER = {
    "sys.executable": set(),  # Python, for a worker or a probe of ours
    "manager.query": set(),  # rpm or dpkg-query, of whichever's database there is
    "known[0]": set(),  # QEMU, by the path that libvirt tells
    "RELOAD": {"systemctl"},
    # What runs what it is given.
    "words": set(),
}
RUNNERS = {"subprocess.run", "subprocess.Popen", "system.run", "run"} | {
    "asyncio.create_subprocess_exec"
}


def commands(script: str) -> set[str]:
    """The programs that a shell script calls, for scripts as simple as ours."""
    text = re.sub(r"\\\n", " ", script).replace("$$", "$")
    text = re.sub(r"\$\(\(.*?\)\)", "0", text)
    inner = re.findall(r"\$\((.*?)\)", text)
    found = set().union(*map(commands, inner))
    words = shlex.shlex(re.sub(r"\$\(.*?\)", "", text), posix=True, punctuation_chars=True)
    begins = True
    for word in words:
        if set(word) <= set(";&|(){}<>") or word in GRAMMAR:
            begins = True
        elif begins and not re.match(r"\w+=", word):
            found.add(word)
            begins = False
    return found - SHELL


def units(of_engine: bool) -> Iterator[str]:
    """The command lines of its units, or the daemon's, without what systemd reads before them."""
    for path in sorted((REPOSITORY / "systemd").rglob("*")):
        if path.name.startswith("cinder-engine") is not of_engine:
            continue
        if path.suffix in (".service", ".socket", ".conf"):
            text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
            yield from re.findall(r"^Exec\w+=[-+@:!]*(.+)$", text, re.M)


def of_units(of_engine: bool) -> set[str]:
    found = set()
    for line in units(of_engine):
        program, _, rest = line.partition(" ")
        found.add(Path(program).name)
        if program == "/bin/sh":
            found |= commands(rest.partition("'")[2].rstrip("'"))
    return found - {"vdsm-cinderd", "cinder-engine"}


def of_scriptlets(of_engine: bool) -> set[str]:
    text = SPEC.read_text(encoding="utf-8")
    whose = " -n cinder-engine" if of_engine else ""
    scriptlet = rf"^%(?:pre|post|preun|postun){whose}$(.*?)(?=^%\w+(?: -n [\w-]+)?$|^%files)"
    parts = re.findall(scriptlet, text, re.M | re.S)
    assert len(parts) == 4
    called = {word for part in parts for word in re.findall(r"^(systemd-\w+)", part, re.M)}
    macros = " ".join(parts)
    assert "%systemd_post" in macros and "%tmpfiles_create" in macros
    return called | {"systemctl", "systemd-tmpfiles"}


def of_code() -> set[str]:
    found: set[str] = set()
    for path in sorted((REPOSITORY / "vdsmcinder").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNNERS and node.args:
                if ast.unparse(node.func) == "run" and path.name != "system.py":
                    continue
                found |= program(node.args[0], path)
    return found


def program(argument: ast.expr, path: Path) -> set[str]:
    if isinstance(argument, ast.Starred):
        return program(argument.value, path)
    if isinstance(argument, (ast.List, ast.Tuple)):
        return program(argument.elts[0], path)
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return {Path(argument.value).name}
    written = ast.unparse(argument)
    assert written in KNOWN_LATER, f"{path}: which program is {written}?"
    return KNOWN_LATER[written]


def required(package: str) -> set[str]:
    """What a package of the spec requires: the main one, or one of its others."""
    text = SPEC.read_text(encoding="utf-8")
    parts = re.split(
        r"^%package (?:-n )?([\w-]+)$", text.partition("%description\n")[0] + rest(text), flags=re.M
    )
    by_name = {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}
    return set(re.findall(r"^Requires: +(\S+)", by_name[package], re.M))


def rest(text: str) -> str:
    begin = text.index("%package common")
    return text[begin : text.index("%prep")]


@pytest.mark.parametrize(
    ("script", "called"),
    [
        ("test -e x || ip link add x type bridge", {"ip"}),
        (
            "a=b; if [ $a = 2 ] || \\\n systemctl x | grep -q y; then exec sleep 3; fi",
            {"systemctl", "grep", "sleep"},
        ),
        ("test -d d || { mkdir d && chown a d; }; kill -HUP 1", {"mkdir", "chown"}),
        (
            'eval "$(systemctl show)"; exec sleep $((N < 9 ? 1 << (N - 4) : 30))',
            {"systemctl", "sleep"},
        ),
    ],
)
def test_commands_are_found_in_scripts(script: str, called: set[str]) -> None:
    assert commands(script) == called


@pytest.mark.parametrize("package", ["", "cinder-engine"])
def test_what_units_and_scriptlets_call_the_package_requires(package: str) -> None:
    called = of_units(bool(package)) | of_scriptlets(bool(package))
    assert {"sh", "systemctl", "systemd-sysusers"} | (set() if package else {"ip"}) <= called
    assert {PACKAGES[command] for command in called} <= required(package)


def test_what_the_code_calls_the_packages_require() -> None:
    called = of_code()
    assert {"ss", "systemctl"} <= called
    assert {PACKAGES[command] for command in called} <= required("client")
