# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw mappings end in rpc/: handlers give them to readers alone, and virt/ has none but some named.

A raw mapping is what a parameter's annotation calls a mapping of anything, or anything at all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Union

import pytest

from tests.pages import REPOSITORY

PACKAGE = REPOSITORY / "vdsmcinder"
RAW = re.compile(r"(Mapping|dict)\[str, Any\]|^(Any|Sequence\[Any\]|list\[Any\])$|\bFields\b")
# What virt/ reads that is no Python value yet, by file and function, and why.
NAMED: Mapping[str, Mapping[str, set[str]]] = {
    "a disk's description, which Drive.from_params takes, as the design has it": {
        "disk/drive.py": {"from_params", "from_connection_info"},
        "disk/disk_params.py": {
            *("read", "_read_cinders", "_assemble", "_encryption", "thing", "device", "bus"),
            *("alias", "serial", "shared", "source", "refuse_second_source", "_guess_type"),
            *("_refuse_network_removable", "_convert_shared"),
        },
        "disk/driver.py": {
            *("for_disk", "for_removable", "_error_policy", "_discard", "_propagate_errors"),
        },
        "disk/source.py": {"from_fields"},
        "disk/disk_auth.py": {"from_fields"},
        "disk/address.py": {"from_fields"},
        "disk/tuning.py": {
            *("from_params", "changes", "from_qos_specs", "_from_known", "_checked"),
        },
        "disk/drive_json.py": {"drive_xml", "described"},
    },
    "a secret, which the keyring keeps as it was sent": {
        "secrets/secret.py": {"from_params", "parse_uuid", "_text", "_description"},
    },
    "what one kind of value converts, to which all readers give anything": {
        "vm/migration_request.py": {"_read_host", "_read_address"},
        "domain/vm_description.py": {"_name"},
    },
    "the text of a domain document's elements": {
        "domain/domain.py": {"_memory_mib"},
        "domain/metadata.py": {"_read", "_get_known", "_read_migration"},
    },
    "libvirt's statistics and parameters, by names of its own": {
        "live/iotune.py": {"_set_block_io_tune"},
        "domain/stats.py": {
            "_silent_ms",
            "monitor_answered",
            "sample",
            "_cpu",
            "_memory",
            "_nics",
            "_disks",
        },
        "vm/vm.py": {"take_sample"},
        "fleet/sampler.py": {"_hand"},
    },
    "what another host says in an error": {
        "vm/migration.py": {"__init__"},
    },
    "an event of a state machine, of a class of its own": {
        "migration/common/table.py": {"receive"},
    },
    "what is asked of a worker of Ceph's, as JSON": {
        "storage/preflight.py": {"_ask"},
    },
}
HANDLERS = ("vm", "host")

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


def functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def raw_parameters(function: Function) -> list[str]:
    """The names of the parameters that are raw; *args and **kwargs are not looked at."""
    args = [*function.args.args, *function.args.kwonlyargs]
    return [a.arg for a in args if a.annotation and RAW.search(ast.unparse(a.annotation))]


def test_virt_takes_no_raw_mappings() -> None:
    found: dict[str, set[str]] = {}
    for path in (PACKAGE / "virt").rglob("*.py"):
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if raw_parameters(function):
                name = path.relative_to(PACKAGE / "virt").as_posix()
                found.setdefault(name, set()).add(function.name)
    named = {file: names for files in NAMED.values() for file, names in files.items()}
    assert found == named


@pytest.mark.parametrize("module", HANDLERS)
def test_handlers_give_what_is_raw_to_readers(module: str) -> None:
    """Each use of a raw parameter is an argument of a read_...() of rpc/requests/ or rpc/wire/."""
    tree = ast.parse((PACKAGE / "rpc" / f"{module}.py").read_text(encoding="utf-8"))
    seen = 0
    for function in functions(tree):
        raw = set(raw_parameters(function))
        uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id in raw]
        read = [
            argument
            for call in ast.walk(function)
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1][:5] == "read_"
            for argument in call.args
        ]
        assert {id(n) for n in uses} <= {id(n) for n in read}, function.name
        seen += len(uses)
    assert seen
