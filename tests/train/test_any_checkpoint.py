"""``continue`` takes checkpoints that transformers wrote, of both kinds of stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from regrow.cli.main import main
from regrow.io.tokenizer import Tokenizer
from tests.model.makers import perturb, stock
from tests.train.corpus import continue_config, write_corpus

BLOCKS = ["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"]
CHANGES: dict[str, dict[str, Any]] = {"llama": {}, "nemotron_h": {"layers_block_type": BLOCKS}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _checkpoint(corpus: Path, family: str, dtype: torch.dtype, folder: Path) -> nn.Module:
    """A random model that transformers saved, with the tokenizer of the shards."""
    tokenizer = Tokenizer.load(corpus / "tokenizer")
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_id, "pad_token_id": None}
    changes = {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": 64,
        **ids,
        **CHANGES[family],
    }
    torch.manual_seed(5)
    model: nn.Module = stock(family, 2, **changes)
    perturb(model)
    model = model.to(dtype)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.copy_files(folder)
    return model


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama", torch.float32),
        ("llama", torch.bfloat16),
        ("nemotron_h", torch.float32),
        ("nemotron_h", torch.bfloat16),
    ],
)
def test_a_checkpoint_of_transformers_is_continued_and_exported(
    corpus: Path, tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import regrow

    given = _checkpoint(corpus, family, dtype, tmp_path / "given")
    # The rate is far below what bf16 can resolve: only fp32 masters can keep such steps.
    words = [f"{k}={v}" for k, v in (("optim.start", "1e-6"), ("optim.weight_decay", "0.0"))]
    config = continue_config(corpus, tmp_path / "given", *words)
    (tmp_path / "c.yaml").write_text(config.as_yaml())
    main_words = ["continue", "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as ended:
        main([*main_words, "--quiet"])
    assert ended.value.code in (0, None)

    export = tmp_path / "r/export"
    theirs = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32).eval()
    assert type(theirs) is type(given)
    assert AutoTokenizer.from_pretrained(export)("the old tree").input_ids
    ours = regrow.load(export)
    ids = torch.randint(0, ours.config.vocab_size, (2, 16))
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        torch.testing.assert_close(ours(ids), expected, rtol=1e-4, atol=1e-4)

    before = load_file(tmp_path / "given/model.safetensors")
    after = load_file(export / "model.safetensors")
    moved = 0
    for name, old in before.items():
        if name not in after:  # a tied head that transformers stores once or twice
            continue
        new = after[name]
        assert new.dtype == torch.float32
        step = (new - old.float()).abs().max()
        assert step < 1e-4, name
        moved += bool(step > 0)
    assert moved > 0.9 * len(after), "trained, in steps that bf16 would have lost"
