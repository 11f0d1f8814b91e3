# SPDX-License-Identifier: GPL-2.0-or-later
"""The alert rules and the dashboard: each query is one, and asks for what the daemon tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.pages import REPOSITORY
from tests.unit.rpc.test_wire import vm
from tests.unit.whole import running
from vdsmcinder.monitoring import metrics

DIRECTORY = REPOSITORY / "monitoring"
RULES = yaml.safe_load((DIRECTORY / "prometheus-rules.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DIRECTORY / "grafana-dashboard.json").read_text(encoding="utf-8"))
OPERATOR = (REPOSITORY / "docs/operator.md").read_text(encoding="utf-8")

NAME = re.compile(r"\b(?:vdsm_cinder|process)_\w+")
LABELS = {"instance", "vm", "disk", "cluster", "monitor"}
OF_PROMETHEUS = {"job", "instance"}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """All PromQL by where it stands, with Grafana's variables filled in."""
    found = {alert["alert"]: alert["expr"] for alert in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return {
        where: re.sub(r"\$(instance|vm)\b", ".*", query.replace("$__rate_interval", "1m"))
        for where, query in found.items()
    }


async def told(tmp_path: Path) -> Mapping[str, set[str]]:
    """The names of all samples that the daemon can tell, and the labels of each."""
    async with running(tmp_path) as host:
        engine = await host.client()
        await engine.call("Host.ping2")
        page = (await host.daemon._metrics()).body.decode()
        sample = metrics._vms([metrics._VmNow("id", "name", vm().status, True, vm().sample)])
        families = [*text_string_to_metric_families(page), *sample]
        await engine.close()
    names: dict[str, set[str]] = {}
    for family in families:
        for suffix in SUFFIXES[family.type]:
            names.setdefault(family.name + suffix, set())
        for one in family.samples:
            names[one.name] |= set(one.labels)
    return names


SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


async def test_every_metric_is_one_of_the_daemons(tmp_path: Path) -> None:
    known = await told(tmp_path)
    texts = [*queries().values(), *(v["definition"] for v in variables() if "definition" in v)]
    asked = {name for text in texts for name in NAME.findall(text)}
    assert len(asked) > 20
    assert asked - set(known) == set()


async def test_every_label_is_one_of_its_metric(tmp_path: Path) -> None:
    known = await told(tmp_path)
    matched = re.compile(r"\b((?:vdsm_cinder|process)_\w+)\{([^}]*)\}")
    for where, query in queries().items():
        for name, selector in matched.findall(query):
            labels = set(re.findall(r"(\w+)\s*(?:=|!)", re.sub(r'"[^"]*"', '""', selector)))
            # Counters of what never happened here have no samples, and so no labels to compare.
            assert not known[name] or labels <= known[name] | OF_PROMETHEUS, where


@pytest.mark.parametrize("where", queries())
def test_every_query_can_be_parsed(where: str) -> None:
    promql_parser.parse(queries()[where])


def test_alerts_say_what_is_wrong_and_the_page_what_to_do() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", OPERATOR, re.M))
    documented = [name for name in rows if name.startswith("VdsmCinder")]
    assert documented == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert set(alert["labels"]) == {"severity"}
        assert alert["annotations"]["summary"].endswith(".")
        variables = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert variables <= set(re.findall(r"\w+", alert["expr"])) | LABELS


async def test_the_page_names_metrics_that_there_are(tmp_path: Path) -> None:
    known = {name.removeprefix("vdsm_cinder_") for name in await told(tmp_path)}
    # libvirt's test driver has none; tests/functional/test_metrics.py sees it.
    known.add("secrets")
    section = OPERATOR[OPERATOR.index("## Metrics") : OPERATOR.index("### Alerts")]
    cells = re.findall(r"^\| (`.+?) \|", section, re.M)
    named = {name for cell in cells for name in re.findall(r"`(\w[\w…]*)`", cell)}
    assert len(named) > 20
    for name in named:
        pattern = re.compile(name.replace("…", r"\w+") + "(_bucket)?")
        assert any(pattern.fullmatch(one) for one in known), name
    assert set(NAME.findall(OPERATOR)) - {"vdsm_cinder_"} <= {f"vdsm_cinder_{n}" for n in known}


def variables() -> Iterator[dict[str, Any]]:
    yield from DASHBOARD["templating"]["list"]


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(set(ids)) == sorted(ids)
    names = {variable["name"] for variable in variables()}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used - {"__rate_interval"} <= names
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert all(x < 24 for x, _ in cells), panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
