# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written in two places of the packaging, because each needs it, is the same in both."""

from __future__ import annotations

import configparser
import dataclasses
import datetime
import re
import subprocess
import sys
from pathlib import Path

import vdsmcinder
from vdsmcinder.config import DEFAULT_PATH, Config, Listen

REPOSITORY = Path(__file__).resolve().parents[2]


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
