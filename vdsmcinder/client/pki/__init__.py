# SPDX-License-Identifier: GPL-2.0-or-later
"""The command vdsm-cinder pki: authorities and certificates."""
