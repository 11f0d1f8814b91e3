# SPDX-License-Identifier: GPL-2.0-or-later
"""The API's types, declared once: XML of versions 3 and 4 and JSON are read and written by it."""
