# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's REST API: dialects from one table of types, resources, search, faults."""
