# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that leave this host and VMs that come to it."""
