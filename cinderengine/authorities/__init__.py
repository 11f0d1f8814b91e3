# SPDX-License-Identifier: GPL-2.0-or-later
"""Who vouches for hosts and clients: the engine's certificate authorities, and what they sign."""
