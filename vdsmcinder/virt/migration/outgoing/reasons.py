# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a VM that was to migrate stays, or was lost: what is known of that, and told of it."""

from __future__ import annotations

from vdsmcinder.errors import MigrationFailed, VdsmCinderError
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change

PAUSED_EARLY = "it was paused before its turn came; have it run, and migrate it again"


class Reasons:
    """Of one migration. address: of the other host's daemon, in words.

    refusal: the other host's, or of a call that was to prepare it. cancelled: it was told to end.
    ended: how libvirt tells that the QEMU process here has ended. call_words: libvirt's own for why
    its call failed, empty if it has not.
    """

    def __init__(self, vm_id: str, address: str) -> None:
        self.refusal: VdsmCinderError | None = None
        self.cancelled = False
        self.ended: Change | None = None
        self.call_words = ""
        self._vm_id = vm_id
        self._address = address
        self._call_failure: VdsmCinderError | None = None

    def refuse(self, why: VdsmCinderError) -> None:
        """It may not go there, or not run there."""
        self.refusal = why

    def cancel(self) -> None:
        """It is told to end."""
        self.cancelled = True

    def has_ended(self, change: Change) -> None:
        """libvirt tells that the QEMU process here has ended."""
        self.ended = change

    def call_failed(self, why: VdsmCinderError, words: str) -> None:
        """libvirt's call that copies has failed."""
        self._call_failure, self.call_words = why, words

    @property
    def ended_by_itself(self) -> bool:
        """Whether the QEMU process here has ended, and not because it had been copied."""
        return self.ended not in (None, lifecycle.MIGRATED_AWAY)

    def explain(self, ended_for: str, io_error: str = "", otherwise: str = "") -> VdsmCinderError:
        """The error to tell an engine; libvirt's where nothing better is known.

        ended_for: why the copying was made to end. io_error: for which the guest stands.
        """
        reason = "the migration was cancelled" if self.cancelled else ended_for
        if not reason and self.ended_by_itself:
            assert self.ended is not None and self.ended.exit is not None
            reason = f"it ended meanwhile: {self.ended.exit.message}"
        reason = reason or io_error or otherwise
        if not reason and self._call_failure is not None:
            return self._call_failure
        reason = reason or "libvirt ended the migration and does not tell why"
        return MigrationFailed(
            f"VM {self._vm_id} was not migrated to host {self._address}: {reason}"
        )

    def lost(self) -> VdsmCinderError:
        """The error for a VM whose copy in post-copy has ended."""
        return MigrationFailed(
            f"VM {self._vm_id} was lost in post-copy: it ran on host {self._address} already and "
            "ended there while the rest of its memory was here"
        )
