# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's search language: read into an expression, and what it says of objects."""
