# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP 1.2: the protocol alone, and a client of it."""
