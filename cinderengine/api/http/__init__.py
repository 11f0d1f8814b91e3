# SPDX-License-Identifier: GPL-2.0-or-later
"""The API over HTTP: who asks, bodies, statuses and headers."""
