# SPDX-License-Identifier: GPL-2.0-or-later
"""One virtual machine and all that there are: status, power, guest agent, trouble."""
