# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API and the portal can have done, one module for each kind of object."""
