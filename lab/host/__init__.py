# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's hypervisors, and the daemon as a process on one of them or on none."""
