# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys of Ceph and passphrases: their values, libvirt's secrets, what outlives the daemon."""
