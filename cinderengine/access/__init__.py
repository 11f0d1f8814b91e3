# SPDX-License-Identifier: GPL-2.0-or-later
"""Users, tokens, and who may do what."""
