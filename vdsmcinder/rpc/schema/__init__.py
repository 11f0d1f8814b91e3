# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract: schema.yml, read, checked and documented."""
