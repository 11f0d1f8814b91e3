# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing of what clients can reach: targets.py says what must hold for any bytes.

The corpus is replayed with the unit tests; `make fuzz` goes on for minutes.
"""
