# SPDX-License-Identifier: GPL-2.0-or-later
"""What the documentation tells its readers to type is typed here, and does what they are shown.

The pages are walked in the order in which they are read, each going on where the one before it
ended: README.md installs the daemon that docs/operator.md removes.
"""

from __future__ import annotations

import pytest

from tests import pages
from tests.functional.walk import walk


@pytest.fixture(scope="module")
def reader(lab):
    with walk(lab) as reader:
        yield reader


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_the_commands_print_what_the_page_shows(reader, page):
    done = [pages.fault(*did) for block in pages.blocks(page) for did in reader.take(block)]
    if faults := "\n".join(filter(None, done)):
        pytest.fail(faults, pytrace=False)
