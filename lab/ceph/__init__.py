# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's Ceph cluster: what it is made of, its daemons, its images."""
