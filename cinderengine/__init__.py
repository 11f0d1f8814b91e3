# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine that drives the hosts: oVirt's REST API on OpenStack Cinder or on a bare Ceph pool."""
