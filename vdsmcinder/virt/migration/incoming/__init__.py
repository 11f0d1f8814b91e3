# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that come to this host: a state machine, pure, and the shell that does what it wants."""
