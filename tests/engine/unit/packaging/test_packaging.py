# SPDX-License-Identifier: GPL-2.0-or-later
"""How the engine is packaged: apart from what hosts get, complete, as it is configured."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cinderengine.config import DEFAULT_PATH, Config, Directories, parse, sections_of
from cinderengine.serve import END_S
from tests.unit.test_packaging import DISTRIBUTED, ENGINE, REPOSITORY, imported_by, read, required

# What the engine imports of distributions' packages, and hosts do not.
OF_THE_ENGINE = {
    "aiohttp": "python3-aiohttp",
    "alembic": "python3-alembic",
    "keystoneauth1": "python3-keystoneauth1",
    "openstack": "python3-openstacksdk",
    "requests": "python3-requests",
    "sqlalchemy": "python3-sqlalchemy",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The directory below which the engine was installed, with no packages that are bundled."""
    directory = tmp_path_factory.mktemp("installed")
    (directory / "bundled").mkdir()
    root = directory / "root"
    environment = {"DESTDIR": str(root), "PREFIX": "/usr", "PATH": os.defpath}
    command = [REPOSITORY / "packaging/install-engine", directory / "bundled"]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    return root


def test_hosts_do_not_get_the_engine():
    """Of all that is installed there, only code and what is named one by one."""
    script = read("packaging/install")
    assert re.findall(r"^code .*", script, re.M) == ['code "$lib" vdsmcinder "$bundled"']
    assert "cinder-engine" not in script


def test_the_engine_brings_of_the_daemon_what_both_import_and_nothing_else(installed):
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    ours = {path for path in files if "cinder-engine" in path}
    assert {path for path in files - ours if not path.startswith("usr/lib/vdsm-cinder/")} == set()
    assert {"usr/bin/cinder-engine", "usr/lib/systemd/system/cinder-engine.service"} <= ours
    # Its migrations come along, though not all of them are modules.
    assert any(path.endswith("store/migrations/script.py.mako") for path in ours)


def test_what_is_installed_starts(installed):
    program = (installed / "usr/bin/cinder-engine").read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-", "config", "--defaults"],
        input=program.replace('"/usr/lib', f'"{installed}/usr/lib'),
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert done.stdout == (installed / str(DEFAULT_PATH).lstrip("/")).read_text()
    assert parse(done.stdout, "it") == Config()


def test_what_the_engine_imports_is_required_or_bundled():
    bundled = re.findall(r"^([\w-]+)==", read("packaging/bundled.txt"), re.M)
    others = imported_by("cinderengine") - {name.replace("-", "_") for name in bundled}
    known = DISTRIBUTED | OF_THE_ENGINE
    assert others <= set(known)
    assert {known[name] for name in others} <= required()[ENGINE] | required()["common"]


def test_the_spec_makes_the_user_that_sysusers_does():
    users = re.findall(r"^u .*", read("systemd/cinder-engine.sysusers"), re.M)
    assert re.findall(r"^u cinder-engine .*", read("vdsm-cinder.spec"), re.M) == users
    assert Directories.state in users[0]


def test_the_unit_is_for_the_directory_of_the_configuration():
    unit = read("systemd/cinder-engine.service")
    (name,) = re.findall(r"^StateDirectory=(.*)", unit, re.M)
    assert f"/var/lib/{name}" == Directories.state
    assert f"d {Directories.state} 0700 " in read("systemd/cinder-engine.tmpfiles")


def test_the_engine_ends_by_itself_before_systemd_ends_it():
    unit = read("systemd/cinder-engine.service")
    (longest,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert int(longest) > END_S


def test_the_man_pages_tell_of_every_option(tmp_path):
    for number in (5, 8):
        (tmp_path / f"man{number}").mkdir()
    command = [sys.executable, REPOSITORY / "packaging/engine_manpages.py", tmp_path]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(REPOSITORY)})
    pages = {
        path.name: subprocess.run(
            ["man", "--encoding=UTF-8", "--local-file", path],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            env={"MANWIDTH": "200"},
        ).stdout
        for path in tmp_path.glob("*/*")
    }
    for section in sections_of(Config()):
        for option in section.options:
            assert f"{option.name}: " in pages["cinder-engine.yaml.5"]
    assert "cinder-engine config [-h] [--defaults]" in pages["cinder-engine.8"]
