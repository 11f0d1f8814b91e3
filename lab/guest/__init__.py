# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's guest: what it boots, libvirt documents for it, its console, the records it writes."""
