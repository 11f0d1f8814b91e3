# SPDX-License-Identifier: GPL-2.0-or-later
"""Resetting a VM and bringing it down: delay, time-out, reboot, force; by agent and by button."""

from __future__ import annotations

import time

import pytest

from tests.functional.guests import new_guest
from tests.functional.helpers import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_AGENT = "kill $(pidof qemu-ga); say without"
DEAF = f"{NO_AGENT}; kill $(pidof acpid); say deaf"


async def test_the_reset_button(engine):
    async with new_guest(engine) as guest:
        assert await guest.call("reset") is True
        await guest.says("^ready vda")
        assert (await guest.stats())["status"] == "Up"


async def test_the_agent_is_asked_first(engine):
    async with new_guest(engine) as guest:
        assert await guest.call("shutdown", delay=0, message="", timeout=30) is True
        await guest.says("^agent powers off")
        assert (await engine.wait_status(guest.id, "Down"))["exitReason"] == 6
        with refused(6, "is Down"):
            await guest.call("shutdown")
        with refused(6, "is Down"):
            await guest.call("reset")


async def test_without_an_agent_the_power_button_is_pressed(engine):
    async with new_guest(engine) as guest:
        await guest.after(NO_AGENT, "^without$")
        await guest.call("shutdown", timeout=30)
        await guest.says("^power button")
        assert (await engine.wait_status(guest.id, "Down"))["exitReason"] == 6


async def test_an_agent_that_hangs_does_not_stand_in_the_way(engine):
    async with new_guest(engine) as guest:
        await guest.after("kill -STOP $(pidof qemu-ga); say stopped", "^stopped$")
        await guest.call("shutdown", timeout=50)
        await guest.says("^power button", 40)
        await engine.wait_status(guest.id, "Down")


async def test_a_delay_and_a_message(engine, daemon):
    message = "the host is going down"
    async with new_guest(engine) as guest:
        called = time.monotonic()
        assert await guest.call("shutdown", delay=2, message=message, timeout=30) is True
        assert time.monotonic() - called < 2
        await engine.wait_status(guest.id, "Powering down")
        assert guest.console.ask("ping", "^pong$")
        await guest.says("^agent powers off")
        assert time.monotonic() - called >= 2
        await engine.wait_status(guest.id, "Down")
    assert message in daemon.log.read_text()


@pytest.mark.parametrize("button", ["agent", "power button"])
async def test_reboot(engine, button):
    async with new_guest(engine) as guest:
        if button != "agent":
            await guest.after(NO_AGENT, "^without$")
        await guest.call("shutdown", reboot="true", timeout=30)
        await engine.wait_status(guest.id, "RebootInProgress")
        await guest.says(f"^{button}")
        await engine.wait_status(guest.id, "Up")
        await guest.says("^ready vda")
        (stats,) = await engine.call("VM.getStats", vmID=guest.id)
        assert stats["status"] == "Up"


async def test_a_guest_that_reboots_ends_if_it_was_asked_to(engine):
    async with new_guest(engine) as guest:
        assert await guest.call("setDestroyOnReboot")
        await guest.call("shutdown", reboot="true", timeout=30)
        down = await engine.wait_status(guest.id, "Down")
        assert (down["exitCode"], down["exitReason"]) == (0, 13)


async def test_a_guest_that_does_not_heed(engine):
    async with new_guest(engine) as guest:
        await guest.after(DEAF, "^deaf$")
        await guest.call("shutdown", timeout=1)
        await engine.wait_status(guest.id, "Powering down")
        await engine.wait_status(guest.id, "Up")
        assert guest.console.ask("ping", "^pong$")

        # By force a reboot is a reset, and the guest is there again.
        await guest.call("shutdown", reboot=True, timeout=1, force=True)
        await guest.says("^ready vda")
        await engine.wait_status(guest.id, "Up")

        await guest.after(DEAF, "^deaf$")
        await guest.call("shutdown", timeout=1, force=True)
        assert (await engine.wait_status(guest.id, "Down"))["exitReason"] == 6


async def test_a_vm_that_is_paused(engine):
    async with new_guest(engine) as guest:
        await guest.call("pause")
        with refused(75, "is Paused", "VM.cont"):
            await guest.call("shutdown", timeout=1)
        await guest.call("shutdown", timeout=1, force=True)
        assert (await engine.wait_status(guest.id, "Down"))["exitReason"] == 6
