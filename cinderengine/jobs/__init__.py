# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs and their steps: done once, undone if need be, resumed after a crash."""
