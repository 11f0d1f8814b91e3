# SPDX-License-Identifier: GPL-2.0-or-later
"""What both sides of a migration work with: state machines and what runs them, libvirt's calls."""
