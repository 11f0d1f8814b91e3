# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to a VM while it runs: disks, NICs, media, limits, displays."""
