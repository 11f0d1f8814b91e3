# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Cinder on the lab's Ceph, and a client of its API."""
