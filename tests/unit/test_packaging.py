# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written in two places of the packaging, because each needs it, is the same in both."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import vdsmcinder
from vdsmcinder.config import DEFAULT_PATH, Config, Listen

REPOSITORY = Path(__file__).resolve().parents[2]
# What is imported of distributions' packages, and what they are called.
DISTRIBUTED = {
    "cryptography": "python3-cryptography",
    "libvirt": "python3-libvirt",
    "lxml": "python3-lxml",
    "rados": "python3-rados",
    "rbd": "python3-rbd",
    "systemd": "python3-systemd",
    "yaml": "python3-pyyaml",
}
# As the spec calls the package that hosts do not get.
ENGINE = "-n cinder-engine"


def read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def test_the_spec_has_the_version_of_the_code() -> None:
    assert re.findall(r"^Version: +(\S+)", read("vdsm-cinder.spec"), re.M) == [
        vdsmcinder.__version__
    ]


def test_spec_and_changelog_tell_of_the_same_releases() -> None:
    released = re.findall(r"^## \[([\d.]+)\] - (\S+)$", read("CHANGELOG.md"), re.M)
    packaged = re.findall(r"^\* (\w+ \w+ \d+ \d+) .* - ([\d.]+)-1$", read("vdsm-cinder.spec"), re.M)
    days = [datetime.datetime.strptime(day, "%a %b %d %Y").date() for day, _ in packaged]
    assert [(version, str(day)) for (_, version), day in zip(packaged, days)] == released
    # The code is the newest of them until the next release.
    assert released[0][0] == vdsmcinder.__version__
    assert released == sorted(released, key=lambda entry: entry[1], reverse=True)


def test_what_is_not_released_yet_comes_first() -> None:
    assert re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.M)[0] == "Unreleased"


def test_the_spec_declares_what_is_bundled() -> None:
    bundled = re.findall(r"^([\w-]+)==(\S+) ", read("packaging/bundled.txt"), re.M)
    declared = re.findall(r"bundled\(python3dist\((\S+)\)\) = (\S+)", read("vdsm-cinder.spec"))
    assert declared == bundled


def test_what_pip_installs_for_the_code_is_bundled() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    wanted = re.findall(r"^[\w.-]+", setup["options"]["install_requires"], re.M)
    bundled = re.findall(r"^([\w-]+)==", read("packaging/bundled.txt"), re.M)
    assert wanted
    assert set(wanted) <= set(bundled)


def distribution(name: str) -> str:
    """A Python package's name as it stands in lists."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_python(name: str) -> bool:
    """Whether a module is one of the interpreter's own."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return False
    origin = Path(spec.origin or "")
    library = Path(sysconfig.get_path("stdlib"))
    return not origin.is_absolute() or (
        library in origin.parents and "site-packages" not in origin.parts
    )


def imported_by(package: str) -> set[str]:
    """The first names of what a package of ours imports that is neither Python's own nor ours."""
    imported = set()
    for path in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    return {name for name in imported if not of_python(name)} - {"vdsmcinder", "cinderengine"}


def required() -> dict[str, set[str]]:
    """The distributions' Python packages that each package of the spec requires, by its name."""
    found = {}
    for part in re.split(r"^%package ", f"main\n{read('vdsm-cinder.spec')}", flags=re.M):
        name, _, rest = part.partition("\n")
        tags = rest.partition("%description")[0]
        found[name] = set(re.findall(r"^Requires: +(python3-\S+)", tags, re.M))
    return found


def test_what_is_imported_is_required_or_bundled_and_nothing_else_is_bundled() -> None:
    others = imported_by("vdsmcinder")
    assert set(DISTRIBUTED) <= others
    of_hosts = set().union(*(names for of, names in required().items() if of != ENGINE))
    assert set(DISTRIBUTED.values()) <= of_hosts
    wanted = {distribution(name) for name in others - set(DISTRIBUTED)}
    needed: set[str] = set()
    while wanted - needed:
        name = (wanted - needed).pop()
        needed.add(name)
        for line in importlib.metadata.requires(name) or ():
            match = re.match(r"[\w.-]+", line)
            assert match
            if "extra ==" not in line and f"python3-{match[0]}" not in of_hosts:
                wanted.add(distribution(match[0]))
    assert sorted(needed) == re.findall(r"^([\w-]+)==", read("packaging/bundled.txt"), re.M)


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (
            {
                "name": "a",
                "version": "1",
                "vulns": [{"id": "X-1", "aliases": [], "fix_versions": ["2"]}],
            },
            1,
            "a 1: X-1; mended in 2\n2 of 2 packages audited, 1 vulnerabilities known",
        ),
        (
            {"name": "a", "skip_reason": "not found"},
            0,
            "NOT AUDITED: a; the first for: not found\n1 of 2 packages audited, 0 vuln",
        ),
        (None, 0, "NOT AUDITED: pip-audit came to no result: no route"),
    ],
    ids=["vulnerable", "unknown", "unreachable"],
)
def test_an_audit_fails_for_what_is_known_and_names_what_is_not(
    tmp_path: Path, answer: object, code: int, told: str
) -> None:
    well = {"name": "b", "version": "1", "vulns": []}
    said = json.dumps({"dependencies": [answer, well]}) if answer else ""
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(f"#!/bin/sh\necho no route >&2\necho '{said}'\n")
    stand_in.chmod(0o755)
    audit = [sys.executable, str(REPOSITORY / "packaging/audit.py"), str(stand_in), "bundled.txt"]
    done = subprocess.run(audit, check=False, text=True, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout[: len(told)]) == (code, told)


def test_the_spec_makes_the_users_that_sysusers_does() -> None:
    users = re.findall(r"^[ug] .*", read("systemd/vdsm-cinder.sysusers"), re.M)
    assert re.findall(r"^[ug] .* - -$", read("vdsm-cinder.spec"), re.M) == users


def test_the_sockets_are_those_of_the_configuration() -> None:
    units = read("systemd/vdsm-cinderd.socket") + read("systemd/vdsm-cinderd-local.socket")
    streams = re.findall(r"^ListenStream=(.*)", units, re.M)
    assert streams == [str(Listen.port), Listen.unix_socket]
    assert str(DEFAULT_PATH) in units


def test_the_man_pages_tell_of_every_option(tmp_path: Path) -> None:
    for section in (1, 5, 8):
        (tmp_path / f"man{section}").mkdir()
    subprocess.run([sys.executable, REPOSITORY / "packaging/manpages.py", tmp_path], check=True)
    man = ["man", "--encoding=UTF-8", "--local-file"]
    pages = {
        path.name: subprocess.run(
            [*man, path], check=True, text=True, stdout=subprocess.PIPE, env={"MANWIDTH": "200"}
        ).stdout
        for path in tmp_path.glob("*/*")
    }
    for part in dataclasses.fields(Config):
        for option in dataclasses.fields(getattr(Config(), part.name)):
            assert f"{option.name}: " in pages["vdsm-cinder.yaml.5"]
    assert "--show-config" in pages["vdsm-cinderd.8"]
    assert "vdsm-cinder call [OPTION...] VERB [NAME=VALUE...]" in pages["vdsm-cinder.1"]


def test_the_kernel_ends_the_daemon_rather_than_a_vm_when_memory_runs_out() -> None:
    """QEMU's score is 0: neither libvirt's units nor ours give it another."""
    unit = read("systemd/vdsm-cinderd.service")
    (score,) = re.findall(r"^OOMScoreAdjust=(-?\d+)$", unit, re.M)
    assert int(score) == 1000
    (gib,) = re.findall(r"^MemoryMax=(\d+)G$", unit, re.M)
    # Python's objects are larger than what they are read from, and workers stand beside it.
    assert int(gib) * 2**30 >= 4 * Listen().max_held_bytes
    assert re.findall(r"^OOMPolicy=(.*)$", unit, re.M) == ["continue"]
    assert re.findall(r"^KillMode=(.*)$", unit, re.M) == ["process"]
