# SPDX-License-Identifier: GPL-2.0-or-later
"""The API as the real program serves it, over HTTPS, to oVirt's own client."""

from __future__ import annotations

import base64

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from tests.engine.unit.main.running import PASSWORD, Program, Served


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    program = Program(tmp_path_factory.mktemp("engine"))
    program.init()
    with program.serve() as served:
        yield program, served


def connected(program: Program, served: Served, password: str = PASSWORD) -> ovirtsdk4.Connection:
    return ovirtsdk4.Connection(
        url=f"https://localhost:{served.port}/ovirt-engine/api",
        username="admin@internal",
        password=password,
        ca_file=str(program.state / "pki/clients-ca.pem"),
    )


def test_a_client_logs_in_and_has_the_default_data_center(served) -> None:
    connection = connected(*served)
    try:
        centers = connection.system_service().data_centers_service().list(search="name=Default")
        assert [center.name for center in centers] == ["Default"]
        clusters = connection.system_service().clusters_service().list()
        assert connection.follow_link(clusters[0].data_center).id == centers[0].id
    finally:
        connection.close()


def test_a_wrong_password_is_refused(served) -> None:
    program, here = served
    connection = connected(program, here, "wrong")
    with pytest.raises(ovirtsdk4.AuthError, match="access_denied"):
        connection.system_service().get()


def test_the_log_says_which_request_a_line_is_of(served) -> None:
    _, here = served
    wrong = base64.b64encode(b"admin@internal:wrong").decode()
    headers = {"Authorization": f"Basic {wrong}", "Correlation-Id": "flow-4711"}
    assert here.get("/ovirt-engine/api", **headers)[0] == 401
    here.wait_for(r" \[flow-4711\]: login of admin@internal from 127.0.0.1 failed")


def test_a_host_gets_the_line_to_run_on_it(served) -> None:
    connection = connected(*served)
    try:
        hosts = connection.system_service().hosts_service()
        host = hosts.add(types.Host(name="h1", cluster=types.Cluster(name="Default")))
        assert host.comment.startswith("vdsm-cinder join https://")
        one = hosts.host_service(host.id)
        shown = one.get()
        assert shown.status is types.HostStatus.PENDING_APPROVAL
        assert shown.comment in {"", None}
        one.remove()
        assert hosts.list() == []
    finally:
        connection.close()


def test_a_provider_that_does_not_answer_is_not_kept(served) -> None:
    connection = connected(*served)
    try:
        providers = connection.system_service().openstack_volume_providers_service()
        with pytest.raises(ovirtsdk4.Error) as e:
            providers.add(types.OpenStackVolumeProvider(name="c", url="http://127.0.0.1:1"))
        assert e.value.code in {400, 503}
        assert "127.0.0.1:1" in e.value.fault.detail
        assert providers.list() == []
    finally:
        connection.close()
