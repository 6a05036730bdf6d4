"""What tests of the device's side share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(scope="module")
def host() -> Iterator[ThreadPoolExecutor]:
    """Threads of the host, as a GPU's worker has them."""
    with ThreadPoolExecutor(2) as pool:
        yield pool
