# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command cinder-engine does, one module for each of its words."""
