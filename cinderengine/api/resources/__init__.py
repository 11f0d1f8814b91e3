# SPDX-License-Identifier: GPL-2.0-or-later
"""What of oVirt's API is served: one table of collections, a module for each group of them."""
