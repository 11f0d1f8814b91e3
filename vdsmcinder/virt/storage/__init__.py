# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether Ceph lets a VM have its images, asked before it has them."""
