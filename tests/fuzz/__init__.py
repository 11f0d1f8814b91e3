# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing of what clients can reach: targets.py says what must hold for any bytes.

tests/unit/test_fuzz.py replays the corpus and tries some more; `make fuzz` goes on for minutes.
"""
