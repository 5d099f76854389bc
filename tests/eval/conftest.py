"""One tokenizer and one set of shards for the room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrow.io.tokenizer import Tokenizer
from tests.compress.makers import make_shards, make_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("corpus"), tokenizer)
