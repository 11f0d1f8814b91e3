# SPDX-License-Identifier: GPL-2.0-or-later
"""Where disks are kept: one protocol, Cinder and a Ceph pool behind it."""
