# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd and the kernel are told, and what they give."""
