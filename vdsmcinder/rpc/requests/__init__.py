# SPDX-License-Identifier: GPL-2.0-or-later
"""What verbs take, read off the wire: each parameter that is an object becomes a value here.

Handlers read a request before they do anything with it; what is below rpc/ takes the values. Only
what is read elsewhere as well has its reader below: a disk's description (virt/disk/disk_params.py,
for Drive.from_params), and a secret, which the keyring keeps as it was sent.
"""
