# SPDX-License-Identifier: GPL-2.0-or-later
"""A session with a host, or one sentence that says why there is none."""

from __future__ import annotations

import os
import socket
import ssl

from vdsmcinder.stomp import client
from vdsmcinder.stomp.client import SessionLost, StompSession
from vdsmcinder.tasks import within
from vdsmcinder.tls_errors import reason

# A host that is gone is noticed within some three of these.
HEARTBEAT_MS = 5000
CONNECT_TIMEOUT_S = 10.0
# OpenSSL's X509_V_ERR_ codes.
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAMES = (62, 64)  # of a host name, of an address


class Unreached(Exception):
    """No session; the message is one sentence: the host, the cause, the remedy.

    refused: somebody is there who is not to be trusted, or who does not trust the engine.
    """

    def __init__(self, sentence: str, *, refused: bool = False) -> None:
        super().__init__(sentence)
        self.refused = refused


async def dial(name: str, address: str, port: int, context: ssl.SSLContext) -> StompSession:
    """Reach the daemon of a host and subscribe to its events. Raises Unreached.

    name: the host's, for sentences. context: trusts the authority that hosts have their
    certificates of, and shows the engine's own.
    """
    where = f"host {name} at {address}:{port}"
    opening = client.connect(address, port, context, HEARTBEAT_MS)
    try:
        session = await within(opening, CONNECT_TIMEOUT_S, StompSession.abort)
    except TimeoutError:
        raise Unreached(
            f"{where} does not answer within {CONNECT_TIMEOUT_S:g} s; check the network to it and "
            "that vdsm-cinderd runs there"
        ) from None
    except ssl.SSLCertVerificationError as e:
        raise Unreached(_untrusted(where, address, e), refused=True) from e
    except SessionLost as e:
        raise _not_let_in(where, e) from e
    except OSError as e:
        raise _away(where, address, e) from e
    try:
        await within(session.subscribe_events(), CONNECT_TIMEOUT_S)
    except (TimeoutError, SessionLost) as e:
        session.abort()
        raise _not_let_in(where, e) from e
    except BaseException:
        session.abort()
        raise
    return session


def _untrusted(where: str, address: str, e: ssl.SSLCertVerificationError) -> str:
    """What is wrong with its certificate."""
    if e.verify_code in _OTHER_NAMES:
        return (
            f"the certificate of {where} does not name {address}; give the host the address that "
            "it names, or have it join again"
        )
    if e.verify_code in (_NOT_YET, _EXPIRED):
        return (
            f"the certificate of {where} is not valid now ({e.verify_message}); set its clock and "
            "the engine's, or have it join again"
        )
    return (
        f"the certificate of {where} is of another authority than this engine's "
        f"({e.verify_message}); have it join this engine, with a new token"
    )


def _not_let_in(where: str, e: Exception) -> Unreached:
    """It was there and the session did not come to be."""
    if isinstance(e.__cause__, ssl.SSLError):
        return Unreached(
            f"{where} does not take the engine's certificate ({reason(e.__cause__)}); have it join "
            "this engine, with a new token",
            refused=True,
        )
    return Unreached(
        f"{where} did not let the engine in ({reason(e)}); if it does not take the engine's "
        "certificate or role, as its log says then, have it join this engine, with a new token"
    )


def _away(where: str, address: str, e: OSError) -> Unreached:
    if isinstance(e, socket.gaierror):
        return Unreached(
            f"{where} has an address that cannot be resolved ({e.strerror}); mend it in the "
            f"name service, or give the host another one than {address}"
        )
    if isinstance(e, ssl.SSLError):
        return Unreached(
            f"{where} does not speak TLS as vdsm-cinderd does ({reason(e)}); check that it is what "
            "listens there",
            refused=True,
        )
    # asyncio puts words of its own in place of the system's.
    why = os.strerror(e.errno) if e.errno is not None and e.errno > 0 else reason(e)
    return Unreached(
        f"{where} cannot be reached ({why}); check the network to it and that vdsm-cinderd runs "
        "there"
    )
