# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks of the daemon, each against a named rival in the same run; see bench/README.md.

`make bench` runs them on a lab. Part of the source tree, never installed.
"""
