"""Any pattern through the verb: exported where a stock class holds it, kept where none does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import regrow
from regrow.core import atomic
from regrow.core.errors import InputError
from regrow.core.run import Run
from regrow.io.runs import resolve_model
from regrow.train import checkpoint
from regrow.train.jobs import pretrain
from tests.train.test_jobs import _pretrain, corpus

__all__ = ["corpus"]  # the fixture


def claim(path: Path, words: list[str], shards: Path) -> tuple[Run, dict[str, object]]:
    config = _pretrain(shards, *words)
    run = Run.claim(path, "test", config, quiet=True)
    try:
        return run, pretrain.run(config, run)
    finally:
        run.release()


def test_a_shape_that_no_stock_class_holds_trains_and_stays(
    corpus: Path,
    tmp_path: Path,
) -> None:
    words = ["model.layers=4", "model.pattern=M-M-", "model.mamba.head_dim=8"]
    notes = pretrain.plan(_pretrain(corpus, *words)).notes
    assert any("not exported: NemotronHForCausalLM cannot decode" in note for note in notes)
    run, result = claim(tmp_path / "r", words, corpus)
    assert "M-M-" in str(result["not_exported"])
    last = checkpoint.latest(run.checkpoints)
    assert last is not None
    assert result["weights_sha256"] == atomic.sha256_file(last / "model.safetensors")
    assert not (run.export / "config.json").exists()
    atomic.write_json(run.path / "result.json", result)
    with pytest.raises(InputError, match="weights stay in checkpoints"):
        resolve_model(run.path)


@pytest.mark.parametrize("packed", ["true", "false"])
def test_a_hybrid_is_exported(corpus: Path, tmp_path: Path, packed: str) -> None:
    words = ["model.layers=4", "model.pattern=M-*-", "model.mamba.head_dim=8"]
    run, result = claim(tmp_path / "r", [*words, f"data.document_mask={packed}"], corpus)
    assert regrow.load(run.path).config.pattern == "M-*-"
    assert isinstance(result["loss"], float)
    assert result["loss"] < math.log(300)
    assert "not_exported" not in result
