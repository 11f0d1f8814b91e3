# SPDX-License-Identifier: GPL-2.0-or-later
"""The host daemon that runs oVirt virtual machines on Ceph disks provisioned by Cinder."""

__version__ = "0.1.0"
