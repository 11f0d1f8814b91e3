# SPDX-License-Identifier: GPL-2.0-or-later
"""One session for each host: what it tells, the keys it must have."""
