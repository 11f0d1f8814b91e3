# SPDX-License-Identifier: GPL-2.0-or-later
"""What two daemons say to each other about a VM that migrates: one writes, the other reads it."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from tests.unit import engine_parsing
from vdsmcinder.errors import (
    ImageNotFound,
    InvalidParameter,
    MigrationFailed,
    MissingParameter,
    SecretMalformed,
    VMExists,
)
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.wire import migration
from vdsmcinder.virt.secrets.secret import Secret, SecretSpec, UsageType
from vdsmcinder.virt.vm.migration import (
    Acceptance,
    Handover,
    Offer,
    PeerRefused,
    Progress,
    Source,
    Verdict,
    error_of,
)
from vdsmcinder.virt.vm.migration_request import Address

VM = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
MIGRATION = "0b4f9c52-11d0-4b8e-8f5d-1c7e0a9d3b62"
KEY = b"a key that nobody may see"
CONTRACT = schema.load()
SPEC = SecretSpec(MIGRATION, UsageType.CEPH, f"ovirt/{MIGRATION}", Secret(KEY), "of the pool")
SOURCE = Source("host1", Address("fd00::1", 54321))
OFFER = Offer(VM, MIGRATION, Handover.CONFIRMED, "<domain/>", SOURCE, (SPEC,), 3, post_copy=True)


def test_an_offer_is_read_as_it_was_written() -> None:
    written = migration.write_offer(OFFER)
    CONTRACT.verbs["VM.migrationCreate"].values(written)
    read = migration.read_offer(written["vmID"], written["params"], written["incomingLimit"])
    assert read.secrets[0].value.reveal() == KEY
    shown = (read.vm_id, read.migration_id, read.handover, read.xml, read.source, read.limit)
    assert shown == (VM, MIGRATION, Handover.CONFIRMED, "<domain/>", SOURCE, 3)
    assert read.post_copy


def test_an_offer_of_a_host_that_does_not_say_where_it_can_be_asked() -> None:
    written = migration.write_offer(replace(OFFER, source=Source("host1")))
    CONTRACT.verbs["VM.migrationCreate"].values(written)
    assert migration.read_offer(VM, written["params"], None).source == Source("host1")


def test_a_question_fits_the_contract() -> None:
    asked = migration.write_question(VM, MIGRATION)
    assert CONTRACT.verbs["VM.migrationKept"].values(asked) == (VM, MIGRATION)


def test_an_offer_shows_no_key() -> None:
    assert KEY.decode() not in repr(OFFER)
    assert base64.b64encode(KEY).decode() not in repr(OFFER)


def test_a_host_that_does_not_say_cannot_encrypt() -> None:
    assert migration.read_acceptance({"migrationPort": 0}) == Acceptance(encryption=False)


@pytest.mark.parametrize("verdict", [Verdict.RUN, Verdict.DROP])
def test_a_verdict_is_read_as_it_was_written(verdict: Verdict) -> None:
    written = migration.write_verdict(VM, MIGRATION, verdict)
    CONTRACT.verbs["VM.migrationConclude"].values(written)
    assert migration.read_verdict(VM, written["params"]) == (MIGRATION, verdict)


def test_who_speaks_for_a_source_that_is_off_need_not_know_which_migration_it_was() -> None:
    said = {"verdict": "fenced"}
    CONTRACT.verbs["VM.migrationConclude"].values({"vmID": VM, "params": said})
    assert migration.read_verdict(VM, said) == (None, Verdict.FENCED)
    with pytest.raises(MissingParameter, match="migrationId is missing"):
        migration.read_verdict(VM, {"verdict": "run"})


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"migrationId": ""}, MissingParameter, "migrationId is missing"),
        (
            {"handover": "soon"},
            InvalidParameter,
            "handover is a string of 4 characters; expected one of confirmed",
        ),
        ({"xml": ""}, MissingParameter, "xml is missing"),
        ({"secrets": [{"uuid": "x"}]}, SecretMalformed, r"secrets\[0\]\.uuid is not a UUID"),
    ],
)
def test_an_offer_that_is_none(params: dict[str, object], error: type, words: str) -> None:
    given = {**migration.write_offer(OFFER)["params"], **params}
    with pytest.raises(error, match=words):
        migration.read_offer(VM, given, None)


def test_status_and_notice_fit_the_contract() -> None:
    stats = CONTRACT.verbs["VM.getMigrationStatus"].result
    for done in (True, False):
        stats.check(migration.stats(VM, Progress(42, downtime_ms=90), done=done), "result")
        table = engine_parsing.MIGRATED_STATUS if done else engine_parsing.MIGRATION_STATUS
        told = migration.stats(VM, Progress(42, downtime_ms=90), done=done)
        engine_parsing.read(told, table, "status")
    name, told = migration.notice(VM, Progress(100, post_copy=True, downtime_ms=90))
    assert name == f"|virt|VM_migration_status|{VM}"
    assert told == {VM: {"progress": 100, "postcopy": True, "downtime": 90}}
    engine_parsing.read(told[VM], engine_parsing.MIGRATION_EVENT, "event")


def test_the_other_host_s_code_is_the_answer_s() -> None:
    refused = error_of(PeerRefused(13, "no such image", {"disk": "vda"}), "it stays", VMExists)
    assert (type(refused), refused.message) == (ImageNotFound, "it stays: no such image")
    assert refused.data == {"disk": "vda"}
    assert type(error_of(PeerRefused(-32601, "", {}), "", MigrationFailed)) is MigrationFailed


@pytest.mark.parametrize("running_ms", [None, 0, 1234])
def test_how_long_it_runs_is_read_as_it_was_written(running_ms: int | None) -> None:
    assert migration.read_conclusion(migration.write_conclusion(running_ms)) == running_ms


def test_a_host_that_does_not_say_how_long_it_runs() -> None:
    assert migration.read_conclusion(True) is None
