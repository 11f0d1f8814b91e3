# SPDX-License-Identifier: GPL-2.0-or-later
"""The command vdsm-cinder join: this host becomes one of an engine's."""
