# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes over the wire, as dicts: made of values, and read into them."""
