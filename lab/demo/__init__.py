# SPDX-License-Identifier: GPL-2.0-or-later
"""The demos: a lab, the daemon, and an engine that shows what they do."""
