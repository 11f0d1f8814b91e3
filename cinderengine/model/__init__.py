# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine knows: entities, their statuses, and which status may follow which."""
