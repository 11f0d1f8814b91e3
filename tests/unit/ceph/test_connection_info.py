# SPDX-License-Identifier: GPL-2.0-or-later
"""Cinder's connection info: what is taken from it, what is refused, and the Drive it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from vdsmcinder.ceph.connection_info import ConnectionInfo, image_path, is_answer
from vdsmcinder.ceph.image import ImageName
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.errors import (
    InvalidParameter,
    MissingParameter,
    UnsupportedDrive,
    VdsmCinderError,
)
from vdsmcinder.virt.disk.disk_auth import Encryption
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.tuning import IoTune

SECRET = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
OTHER = "f981dd17-143f-45bc-88e6-ed1fe20ce9da"
VOLUME = "5c11e1b6-9c9a-4ae2-8a4c-2f1d5c7b1e01"


def info(**changes: Any) -> dict[str, Any]:
    """An answer of Cinder's with some fields of its data changed."""
    return {
        "driver_volume_type": "rbd",
        "data": {
            "name": f"volumes/volume-{VOLUME}",
            "hosts": ["10.0.0.1", "10.0.0.2"],
            "ports": ["6789", "3300"],
            "cluster_name": "ceph",
            "auth_enabled": True,
            "auth_username": "cinder",
            "secret_type": "ceph",
            "secret_uuid": SECRET,
            "volume_id": VOLUME,
            "discard": True,
            "qos_specs": None,
            "access_mode": "rw",
            "encrypted": False,
            "cacheable": False,
            **changes,
        },
    }


# What a list of attachments tells of one.
SUMMARY = {"id": OTHER, "status": "attached", "instance": OTHER, "volume_id": VOLUME}


def attachment(connection: Any = None, **changes: Any) -> dict[str, Any]:
    """The same volume as an attachment, as POST, PUT and GET of /attachments answer."""
    flat = {"driver_volume_type": "rbd", **info()["data"], "attachment_id": OTHER, **changes}
    return {
        "attachment": {
            "id": OTHER,
            "status": "attaching",
            "instance": OTHER,
            "volume_id": VOLUME,
            "attached_at": "2026-01-05T10:11:12.000000",
            "detached_at": "",
            "attach_mode": "rw",
            "connection_info": flat if connection is None else connection,
        }
    }


@pytest.mark.parametrize("form", ["whole", "inner", "flat", "nested"])
def test_an_attachment_is_the_same_disk(form: str) -> None:
    whole = attachment()
    inner = whole["attachment"]
    nested = attachment(info())
    answers = {"whole": whole, "inner": inner, "flat": inner["connection_info"], "nested": nested}
    answer = answers[form]
    assert ConnectionInfo.from_dict(answer) == ConnectionInfo.from_dict(info())
    assert image_path(answer) == image_path(info()) == f"volumes/volume-{VOLUME}"
    assert is_answer(answer)


def test_an_attachment_that_os_attach_made_names_no_image() -> None:
    assert image_path({"attachment": {"volume_id": VOLUME, "connection_info": None}}) is None


def test_an_attachment_for_reading_is_read_only() -> None:
    answer = attachment()
    answer["attachment"]["attach_mode"] = "ro"
    assert ConnectionInfo.from_dict(answer).readonly
    assert ConnectionInfo.from_dict(attachment(access_mode="ro")).readonly


def test_an_attachment_knows_its_volume_where_its_connection_does_not() -> None:
    assert ConnectionInfo.from_dict(attachment(volume_id=None)).volume_id == VOLUME


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            attachment({}),
            MissingParameter,
            f"Cinder attachment of '{VOLUME}': connection_info is empty",
        ),
        (attachment(name=None), MissingParameter, f"of '{VOLUME}': name is missing"),
        (attachment(hosts=["a b"]), InvalidParameter, "hosts[0] is a string of 3"),
        (attachment(secret_uuid=None), MissingParameter, "': secret_uuid is missing; expected the"),
        (
            {"attachment": {**attachment()["attachment"], "connection_info": None}},
            MissingParameter,
            f"Cinder attachment of '{VOLUME}': connection_info is empty",
        ),
        (SUMMARY, MissingParameter, f"Cinder attachment of '{VOLUME}': connection_info is empty"),
        (
            {"attachment": SUMMARY},
            MissingParameter,
            f"Cinder attachment of '{VOLUME}': connection_info is empty",
        ),
        (
            attachment(driver_volume_type="iscsi"),
            UnsupportedDrive,
            f"of 'volumes/volume-{VOLUME}': driver_volume_type is 'iscsi'; expected rbd",
        ),
        ({"attachment": 5}, InvalidParameter, "the description is a number"),
        ({"attachment": None}, InvalidParameter, "the description is null"),
    ],
)
def test_attachment_refused(
    given: dict[str, Any], error: type[VdsmCinderError], words: str
) -> None:
    with pytest.raises(error) as caught:
        Drive.from_connection_info(given)
    assert words in caught.value.message


def test_all_fields() -> None:
    assert ConnectionInfo.from_dict(info()) == ConnectionInfo(
        image=ImageName(f"volumes/volume-{VOLUME}"),
        hosts=(MonitorHost("10.0.0.1", 6789, "tcp"), MonitorHost("10.0.0.2", 3300, "tcp")),
        cluster_name="ceph",
        username="cinder",
        secret_uuid=SECRET,
        volume_id=VOLUME,
        discard=True,
        readonly=False,
        encrypted=False,
        qos={},
    )


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, MissingParameter, "driver_volume_type is missing"),
        ({"driver_volume_type": "rbd"}, MissingParameter, "data.name is missing"),
        (
            {"driver_volume_type": "iscsi"},
            UnsupportedDrive,
            "driver_volume_type is 'iscsi'; expected rbd",
        ),
        (
            {"driver_volume_type": "a word"},
            UnsupportedDrive,
            "driver_volume_type is a string of 6 characters; expected rbd",
        ),
        ({"driver_volume_type": "rbd", "data": []}, InvalidParameter, "data is a list of 0"),
        (
            info(name="volume-1"),
            InvalidParameter,
            "data.name is a string of 8 characters; expected pool/image",
        ),
        (
            info(hosts=["a b"], ports=["1"]),
            InvalidParameter,
            "data.hosts[0] is a string of 3 characters",
        ),
        (info(ports=["6789"]), InvalidParameter, "expected as many as there are hosts, 2"),
        (info(ports=["6789", "x"]), InvalidParameter, "data.ports[1] is a string of 1 character"),
        (
            info(secret_uuid=None),
            MissingParameter,
            f"'volumes/volume-{VOLUME}': data.secret_uuid is missing; expected the UUID of a "
            "libvirt secret, from rbd_secret_uuid in Cinder's configuration or else from "
            "vms.cinder_secret_uuid in this host's",
        ),
        (info(secret_uuid="7"), InvalidParameter, "data.secret_uuid is a string of 1 character"),
        (
            info(secret_type="iscsi"),
            InvalidParameter,
            "data.secret_type is a string of 5 characters",
        ),
        (info(auth_username=None), MissingParameter, "data.auth_username is missing"),
        (
            info(auth_enabled="perhaps"),
            InvalidParameter,
            "data.auth_enabled is a string of 7 characters",
        ),
        (
            info(access_mode="wo"),
            InvalidParameter,
            "data.access_mode is a string of 2 characters; expected one of rw",
        ),
        (
            info(cluster_name="../x"),
            InvalidParameter,
            "data.cluster_name is a string of 4 characters",
        ),
        (info(encrypted="x"), InvalidParameter, "data.encrypted is a string of 1 character"),
        (info(qos_specs="fast"), InvalidParameter, "data.qos_specs is a string of 4 characters"),
        (
            info(qos_specs={"read_iops_sec": "fast"}),
            InvalidParameter,
            "data.qos_specs.read_iops_sec is a string of 4 characters; expected a whole number",
        ),
        (
            info(encrypted=True),
            UnsupportedDrive,
            "data.encrypted is 'true'; expected false, or",
        ),
    ],
)
def test_refused(given: dict[str, Any], error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        Drive.from_connection_info(given)
    assert words in caught.value.message


@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "wrapped"])
def test_without_a_secret_the_default_is_taken(wrap: bool) -> None:
    given = info(secret_uuid=None)
    answer = {"connection_info": given} if wrap else given
    assert Drive.from_connection_info(answer, (), OTHER).source.auth.secret_uuid == OTHER
    # What Cinder says counts, right or wrong.
    assert Drive.from_connection_info(info(), (), OTHER).source.auth.secret_uuid == SECRET
    with pytest.raises(InvalidParameter, match="secret_uuid is a string of 1 character"):
        Drive.from_connection_info(info(secret_uuid="7"), (), OTHER)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            {"path": "volumes/other"},
            "path is a string of 13 characters; expected none beside connectionInfo",
        ),
        ({"hosts": [{"name": "10.0.0.9"}]}, "hosts is"),
        ({"auth": {"username": "x"}}, "auth is"),
        ({"configFile": "/etc/ceph/x.conf"}, "configFile is"),
        ({"diskType": "file"}, "diskType is a string of 4 characters; expected one of network"),
        ({"protocol": "iscsi"}, "protocol is a string of 5 characters; expected one of rbd"),
        ({"connectionInfo": "x"}, "connectionInfo is a string of 1 character; expected an object"),
        (
            {"connectionInfo": {"connection_info": 5}},
            "the description is a number",
        ),
        (
            {"encryption": {"uuid": OTHER, "format": "luks2", "engine": "qemu"}},
            "encryption.engine is a string of 4 characters; expected librbd for luks2",
        ),
        ({"encryption": {"uuid": "x"}}, "encryption.uuid is a string of 1 character"),
        ({"encryption": {"format": "luks"}}, "encryption.uuid is missing"),
        ({"cache": "writeback", "shared": "shared"}, "expected none or directsync, as the disk is"),
        (
            {"detectZeroes": "unmap", "discard": "false"},
            "detectZeroes is a string of 5 characters; expected on or",
        ),
        ({"specParams": {"queues": 0}}, "specParams.queues is a number"),
    ],
)
def test_refused_of_a_device(device: dict[str, Any], words: str) -> None:
    with pytest.raises((InvalidParameter, MissingParameter)) as caught:
        Drive.from_params({"deviceId": VOLUME, "connectionInfo": info(), **device})
    assert words in caught.value.message


def test_what_an_engine_does_not_know_is_cinders() -> None:
    device = {"connectionInfo": info(), "serial": "", "discard": None, "path": "", "hosts": []}
    drive = Drive.from_params(device)
    assert (drive.serial, drive.driver.discard) == (VOLUME, "unmap")
    assert Drive.from_params({**device, "discard": "false"}).driver.discard is None


def test_without_cephx() -> None:
    given = info(auth_enabled=False, auth_username=None, secret_uuid=None)
    assert Drive.from_connection_info(given).source.auth is None


def test_brackets_come_off() -> None:
    connection = ConnectionInfo.from_dict(info(hosts=["[fd00::1]", "fd00::2"]))
    assert [host.name for host in connection.hosts] == ["fd00::1", "fd00::2"]


def test_without_ports() -> None:
    connection = ConnectionInfo.from_dict(info(ports=[]))
    assert [host.port for host in connection.hosts] == [None, None]


@pytest.mark.parametrize(
    ("cluster", "config_file"), [("ceph", None), ("backup", "/etc/ceph/backup.conf")]
)
def test_monitors_from_the_configuration_file(cluster: str, config_file: str | None) -> None:
    given = info(hosts=[], ports=[], cluster_name=cluster)
    source = Drive.from_connection_info(given).source
    assert (source.hosts, source.config_file) == ((), config_file)


def test_read_only_stays_read_only() -> None:
    assert Drive.from_connection_info(info(access_mode="ro"), readonly=False).readonly
    assert not Drive.from_connection_info(info()).readonly
    assert Drive.from_connection_info(info(), readonly=True).readonly


def test_snapshot_must_be_read_only() -> None:
    given = info(name="volumes/volume-1@snapshot-1")
    with pytest.raises(InvalidParameter, match="path names a snapshot"):
        Drive.from_connection_info(given)
    source = Drive.from_connection_info(given, readonly=True).source
    assert (source.path, source.snapshot) == ("volumes/volume-1", "snapshot-1")


def test_encrypted_with_its_secret() -> None:
    secret = "f981dd17-143f-45bc-88e6-ed1fe20ce9da"
    drive = Drive.from_connection_info(info(encrypted=True), encryption={"uuid": secret})
    assert drive.source.encryption == Encryption("luks", secret)


def test_limits_for_the_storage_are_left_to_it(caplog: pytest.LogCaptureFixture) -> None:
    specs = {"read_iops_sec": "100", "write_bytes_sec": 5, "vendor:tier": "gold"}
    drive = Drive.from_connection_info(info(qos_specs=specs))
    assert drive.io_tune.limits == (("read_iops_sec", 100), ("write_bytes_sec", 5))
    assert "vendor:tier" in caplog.text


def test_a_group_in_qos_specs_is_shared_and_not_called_foreign(
    caplog: pytest.LogCaptureFixture,
) -> None:
    specs = {"read_iops_sec": "100", "group_name": "gold"}
    assert Drive.from_connection_info(info(qos_specs=specs)).io_tune == IoTune(
        (("read_iops_sec", 100),), "gold"
    )
    assert caplog.text == ""
    # A group without limits has nothing to share.
    assert Drive.from_connection_info(info(qos_specs={"group_name": "gold"})).io_tune is None
    assert "group_name" in caplog.text
    with pytest.raises(InvalidParameter, match=r"data\.qos_specs\.total_iops_sec_max is "):
        Drive.from_connection_info(info(qos_specs={"total_iops_sec_max": "7"}))


def test_engine_adds_what_cinder_does_not_know() -> None:
    drive = Drive.from_connection_info(
        info(), ("sda",), iface="scsi", bootOrder="2", serial="s", deviceId=VOLUME
    )
    assert (drive.target, drive.boot_order, drive.serial) == ("sdb", 2, "s")
    assert drive.alias == f"ua-{VOLUME}"
    assert drive.driver.discard == "unmap"
