# SPDX-License-Identifier: GPL-2.0-or-later
"""The libvirt domain of a VM: its document, what it is made from, what it tells."""
