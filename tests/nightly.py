# SPDX-License-Identifier: GPL-2.0-or-later
"""`make nightly`: runs targets of make to their end, whatever fails, and tells what came of each.

What they print goes to where this prints; the last lines are the summary, one for each target.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence


def main(make: str, targets: Sequence[str]) -> int:
    """Run the targets; 0 if all succeeded, else 1."""
    summary, failed = [], False
    for target in targets:
        print(f"=== make {target}", flush=True)
        began = time.monotonic()
        # Their tables are for whoever reads this; the pages of docs/ stay as they are.
        code = subprocess.run([make, target, "WRITE="], check=False).returncode
        failed |= code != 0
        told = f"failed with exit code {code}" if code else "went well"
        summary.append(f"make {target:<14} {told} after {time.monotonic() - began:.0f} s")
    print("\n".join(["=== all parts", *summary]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
