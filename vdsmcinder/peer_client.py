# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemons of other hosts, called over STOMP and TLS with this host's own certificate.

For VMs that leave this host. PeerUnreachable says what is wrong with a host that is none.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from vdsmcinder import logs, revocation
from vdsmcinder.config import Listen, Migration
from vdsmcinder.errors import PeerUnreachable, RemoteError
from vdsmcinder.rpc.wire import migration
from vdsmcinder.stomp import client
from vdsmcinder.tasks import within
from vdsmcinder.tls_errors import reason
from vdsmcinder.virt.vm.migration import Acceptance, Offer, PeerRefused, Verdict
from vdsmcinder.virt.vm.migration_request import Address

# So soon is it noticed that the other host is gone, in some three of these.
HEARTBEAT_MS = 5000
CONNECT_TIMEOUT_S = 10.0
# For checks there, which ask libvirt and Ceph; and for letting a VM run or ending it.
OFFER_TIMEOUT_S = 60.0
CONCLUDE_TIMEOUT_S = 45.0


async def connect(listen: Listen, address: Address, own: Migration | None = None) -> StompPeer:
    """Reach a host's daemon.

    own: what is shown to it; None for what clients are shown. Raises PeerUnreachable (10), which
    says why it cannot be.
    """
    try:
        # Anew each time: the certificate may have been renewed.
        context = _context(listen, own) if listen.tls else None
        dialling = client.connect(address.host, address.port, context, HEARTBEAT_MS)
        session = await within(dialling, CONNECT_TIMEOUT_S, client.StompSession.abort)
    except asyncio.TimeoutError:
        raise PeerUnreachable(
            f"host {address} does not answer within {CONNECT_TIMEOUT_S:g} s; check the network to "
            "it and that vdsm-cinderd runs there",
            host=str(address),
        ) from None
    except ssl.SSLCertVerificationError as e:
        raise PeerUnreachable(
            f"the certificate of host {address} is not to be trusted ({e.verify_message}); name "
            "the host as its certificate does, or give both hosts certificates of one CA",
            host=str(address),
        ) from e
    except OSError as e:
        # asyncio puts words of its own in place of the system's.
        told = not isinstance(e, ssl.SSLError) and e.errno is not None and e.errno > 0
        why = os.strerror(e.errno or 0) if told else reason(e)
        raise PeerUnreachable(
            f"host {address} cannot be reached ({why}); check that vdsm-cinderd runs there, "
            "and that its CA signed this host's certificate, for clients too",
            host=str(address),
        ) from e
    return StompPeer(session, address)


def _context(listen: Listen, own: Migration | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=listen.ca)
    if listen.crl:
        revocation.refuse_revoked(context, listen.crl)
    if own is not None and own.certificate:
        context.load_cert_chain(own.certificate, own.key or None, password="")
    else:
        context.load_cert_chain(listen.certificate, listen.key, password="")
    return context


class StompPeer:
    """Another host's daemon, as virt/vm/migration.py wants one."""

    def __init__(self, session: client.StompSession, address: Address) -> None:
        self._session = session
        self._host = address
        self.address = session.peer_address

    async def offer(self, offer: Offer) -> Acceptance:
        params = migration.write_offer(offer)
        result = await self._call("VM.migrationCreate", params, OFFER_TIMEOUT_S)
        return migration.read_acceptance(result)

    async def conclude(self, vm_id: str, migration_id: str, verdict: Verdict) -> int | None:
        params = migration.write_verdict(vm_id, migration_id, verdict)
        result = await self._call("VM.migrationConclude", params, CONCLUDE_TIMEOUT_S)
        return migration.read_conclusion(result)

    async def keeps(self, vm_id: str, migration_id: str) -> bool:
        params = migration.write_question(vm_id, migration_id)
        return await self._call("VM.migrationKept", params, CONCLUDE_TIMEOUT_S) is True

    async def close(self) -> None:
        self._session.abort()

    async def _call(self, verb: str, params: dict[str, Any], timeout_s: float) -> Any:
        try:
            # The flow id of the engine's call marks the lines in the other host's log too.
            return await self._session.call(verb, params, logs.flow_id.get(), timeout_s)
        except RemoteError as e:
            raise PeerRefused(e.code, e.message, dict(e.data)) from e
        except (OSError, asyncio.TimeoutError) as e:
            why = reason(e) or f"no answer within {timeout_s:g} s"
            raise PeerUnreachable(
                f"host {self._host} was lost during {verb} ({why}); check the network to it and "
                "that vdsm-cinderd runs there",
                host=str(self._host),
            ) from e
