# SPDX-License-Identifier: GPL-2.0-or-later
"""What operators and their systems are told of the daemon: health, metrics, certificates."""
