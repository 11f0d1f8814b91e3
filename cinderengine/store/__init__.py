# SPDX-License-Identifier: GPL-2.0-or-later
"""The database: tables, migrations, queries, transactions, leases."""
