# SPDX-License-Identifier: GPL-2.0-or-later
"""The command vdsm-cinder doctor: is all there that VMs on Ceph need?"""
