# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM consists of: small objects that each keep one side of its state."""
