# SPDX-License-Identifier: GPL-2.0-or-later
"""One disk: its source, driver, target and limits, read from requests and documents."""
