# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt at arm's length: its calls, its documents, and the QEMU processes that it starts."""
