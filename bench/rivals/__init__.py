# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon is measured against: each a process of its own."""
