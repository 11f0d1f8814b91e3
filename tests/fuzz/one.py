# SPDX-License-Identifier: GPL-2.0-or-later
"""One target under atheris: `python -m tests.fuzz.one TARGET [options and places of libFuzzer]`.

A process for each target: libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import logging
import sys

import atheris

# Only what is under test: to instrument all that it imports takes minutes.
with atheris.instrument_imports(include=["vdsmcinder"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
