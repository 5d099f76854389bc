"""The pass over one block at a time against the pass over the whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regrow
from regrow.compress import importance_config, streamed_importance
from regrow.compress.importance import Statistics, measure
from regrow.compress.importance_config import ImportanceConfig, is_streamed
from regrow.compress.score_file import read_scores
from regrow.compress.streamed_importance import StreamedDecoder, windows_at_once
from regrow.core.hardware import memory_bytes
from regrow.data.loader import Batch
from regrow.grow.execute import execute
from regrow.grow.verbs import get_verb
from regrow.model.folder import load, opened
from regrow.model.presets import PRESETS
from tests.compress.makers import save_model
from tests.model.makers import FAMILIES, stock, tokens


def assert_equal(found: Statistics, expected: Statistics) -> None:
    assert (found.samples, found.tokens) == (expected.samples, expected.tokens)
    for mine, theirs in ((found.sums, expected.sums), (found.squares, expected.squares)):
        assert mine.keys() == theirs.keys()
        for aggregation in mine:
            for site, value in theirs[aggregation].items():
                assert torch.equal(mine[aggregation][site], value), site
                assert value.abs().sum() > 0, site
    assert torch.equal(found.cosines, expected.cosines)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_block_by_block_sees_the_same(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    stock(family, 1).to(dtype).save_pretrained(tmp_path, max_shard_size=6000)
    whole = load(tmp_path)
    assert whole.embed.weight.dtype == dtype
    windows = [tokens(whole.config, 3, 10, seed) for seed in range(2)]
    documents = torch.zeros(3, 10, dtype=torch.int64)
    documents[:, 4:] = 1
    batches = [Batch(windows[0], windows[0], None), Batch(windows[1], windows[1], documents)]
    aggregations: tuple[Any, ...] = ("mean", "l2", "var")
    expected = measure(whole, batches, aggregations)
    with opened(tmp_path) as source:
        found = measure(StreamedDecoder(source), batches, aggregations)
    assert_equal(found, expected)


def test_only_the_block_that_runs_has_weights(tmp_path: Path) -> None:
    save_model(tmp_path, None, layers=3)
    with opened(tmp_path) as source:
        model = StreamedDecoder(source)
        seen = []

        def note(module: Any, inputs: Any, output: Any) -> None:
            there = [
                index
                for index, block in enumerate(model.blocks)
                if not any(p.is_meta for p in block.parameters())
            ]
            seen.append(there)

        for block in model.blocks:
            block.register_forward_hook(note)
        ids = tokens(model.config, 1, 5)
        with torch.no_grad():
            hidden = model.hidden(ids)
            expected = load(tmp_path).hidden(ids)
        assert seen == [[index] for index in range(6)]
        assert torch.equal(hidden, expected)
        assert all(p.is_meta for p in model.blocks.parameters())
        with pytest.raises(ValueError, match="does not decode with a cache"):
            model.hidden(ids, cache=regrow.load(tmp_path).new_cache(1, 8))


def test_the_verb_gives_the_same_scores_either_way(
    tokenizer: Any, shards: Path, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", tokenizer, layers=2)
    results = {}
    for streamed in (True, False):
        config = ImportanceConfig(
            model=tmp_path / "model", shards=shards, samples=12, sequence=32, streamed=streamed
        )
        notes = get_verb("importance").plan(config).notes
        assert any("at a time" in note for note in notes) is streamed
        results[streamed] = execute("importance", config, tmp_path / str(streamed), quiet=True)
    one, two = (read_scores(tmp_path / str(s)).statistics for s in (True, False))
    for site, value in one.squares["mean"].items():
        torch.testing.assert_close(value, two.squares["mean"][site], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(one.cosines, two.cosines, rtol=1e-5, atol=1e-3)
    assert results[True]["model_sha256"] == results[False]["model_sha256"]
    # How it is read is no part of what is made: the same folder goes on either way.
    told = json.loads((tmp_path / "True" / "result.json").read_text())
    other = ImportanceConfig(
        model=tmp_path / "model", shards=shards, samples=12, sequence=32, streamed="auto"
    )
    again = execute("importance", other, tmp_path / "True", quiet=True)
    assert again["scores_sha256"] == told["scores_sha256"]


def test_it_is_chosen_where_the_weights_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PRESETS["llama31-8b"]
    config = ImportanceConfig(model=Path("m"), shards=Path("s"))
    monkeypatch.setattr(importance_config, "memory_bytes", lambda: 33e9)
    assert not is_streamed(config, model)  # 8.03e9 x 4 bytes
    monkeypatch.setattr(importance_config, "memory_bytes", lambda: 32e9)
    assert is_streamed(config, model)
    assert not is_streamed(config.replace(streamed=False), model)


def test_windows_fill_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PRESETS["llama31-8b"]
    assert windows_at_once(model, 256) >= 1
    assert memory_bytes() > 0
    monkeypatch.setattr(streamed_importance, "memory_bytes", lambda: 20e9)
    count = windows_at_once(model, 256)
    # The residual streams before each of the 32 layers, fp32, are the most of it.
    assert 0.5 * 5e9 < count * 256 * 32 * 4096 * 4 < 5e9
    assert windows_at_once(model, 10**9) == 1
