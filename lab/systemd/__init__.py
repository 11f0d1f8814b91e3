# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypervisors that boot systemd, with the daemon installed as a package."""
