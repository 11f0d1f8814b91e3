# SPDX-License-Identifier: GPL-2.0-or-later
"""`make audit`: known vulnerabilities of the bundled packages, as pip-audit finds them.

python audit.py PIP_AUDIT REQUIREMENTS. Fails if one is known. What nobody can be asked about, for
instance because the advisories cannot be reached from here, is named and no failure: it says
nothing of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys

OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")


def main(pip_audit: str, requirements: str) -> int:
    """Ask, and tell what came of it."""
    argv = [pip_audit, *OPTIONS, "--requirement", requirements]
    done = subprocess.run(argv, check=False, text=True, capture_output=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        print(f"NOT AUDITED: pip-audit came to no result: {reason}")
        return 0
    found = [(p, v) for p in packages for v in p.get("vulns", ())]
    for package, vulnerability in found:
        names = ", ".join([vulnerability["id"], *vulnerability["aliases"]])
        mended = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {names}; mended in {mended}")
    unknown = [p for p in packages if "skip_reason" in p]
    if unknown:
        names = ", ".join(p["name"] for p in unknown)
        print(f"NOT AUDITED: {names}; the first for: {unknown[0]['skip_reason']}")
    audited = len(packages) - len(unknown)
    print(f"{audited} of {len(packages)} packages audited, {len(found)} vulnerabilities known")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
