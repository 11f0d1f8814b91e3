# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd and whoever watches the engine are told of it."""
