from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.train.fakes import release_runs


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    yield
    release_runs()
