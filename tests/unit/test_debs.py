# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages that do not come at once: what has come is kept, the rest is asked for again."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from lab import debs
from lab.base import LabError
from lab.steps import Step

# An apt-get that brings one of three packages a call, and a dpkg-deb that unpacks it.
APT_GET = """\
#!/bin/sh
echo call >>{calls}
for name in one two three; do
    if [ ! -e $name.deb ]; then
        : >$name.deb
        break
    fi
done
[ -e three.deb ] && exit 0
echo "E: Failed to fetch http://deb.example.com/pool/three_1.0.deb  Could not resolve" >&2
exit 100
"""
DPKG_DEB = """\
#!/bin/sh
mkdir -p "$3"
touch "$3/$(basename "$2")"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs are that stand in for Debian's; each call adds a line to `calls`."""
    directory = tmp_path / "bin"
    directory.mkdir()
    script(directory / "apt-get", APT_GET.format(calls=tmp_path / "calls"))
    script(directory / "dpkg-deb", DPKG_DEB)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setattr(debs, "PAUSES_S", (0, 0, 0))
    return directory


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def fetch(tmp_path: Path) -> set[str]:
    out = io.StringIO()
    step = Step("packages", out)
    debs.fetch(tmp_path / "tree", ["three"], step)
    step.end("done")
    return {path.name for path in (tmp_path / "tree").iterdir()}


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().splitlines())


def test_the_rest_is_asked_for_again(programs: Path, tmp_path: Path) -> None:
    assert fetch(tmp_path) == {"one.deb", "two.deb", "three.deb"}
    assert calls(tmp_path) == 3
    assert not (tmp_path / "tree.archives").exists()


def test_what_is_there_is_not_asked_for(programs: Path, tmp_path: Path) -> None:
    fetch(tmp_path)
    fetch(tmp_path)
    assert calls(tmp_path) == 3


def test_the_next_run_goes_on_where_one_gave_up(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debs, "PAUSES_S", (0,))
    with pytest.raises(LabError, match=r"three_1\.0\.deb did not come"):
        fetch(tmp_path)
    assert not (tmp_path / "tree").exists()
    assert fetch(tmp_path) == {"one.deb", "two.deb", "three.deb"}
    assert calls(tmp_path) == 3


def test_what_no_other_try_would_mend_is_told_at_once(programs: Path, tmp_path: Path) -> None:
    said = "E: Unable to locate package three"
    script(
        programs / "apt-get",
        f"#!/bin/sh\necho call >>{tmp_path}/calls\necho '{said}' >&2; exit 100\n",
    )
    with pytest.raises(LabError, match=said):
        fetch(tmp_path)
    assert calls(tmp_path) == 1


RETRY = Path(__file__).parents[2] / "packaging" / "retry"


def test_a_command_is_run_until_it_succeeds(tmp_path: Path) -> None:
    flaky = tmp_path / "flaky"
    script(flaky, f"#!/bin/sh\necho x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -ge $1 ]\n")
    script(tmp_path / "sleep", "#!/bin/sh\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([RETRY, flaky, "3"], env=environment, capture_output=True, check=True)
    assert calls(tmp_path) == 3
    assert b"asking again" in done.stderr
    given_up = subprocess.run(
        [RETRY, flaky, "100"], env=environment, capture_output=True, check=False
    )
    assert given_up.returncode == 1
    assert calls(tmp_path) == 9
