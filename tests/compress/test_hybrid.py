"""Hybrids: width and neurons are cut, Mamba-2 blocks keep their heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from regrow.compress.importance import measure, site_widths
from regrow.compress.prune_config import BudgetTarget
from regrow.compress.ranking import choose
from regrow.compress.shape_search import count, within
from regrow.compress.slicing import Keep, cut
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.folder import load, save
from regrow.model.shapes import non_embedding_parameters, parameters
from tests.compress.test_importance import Windows
from tests.model.makers import ours, tokens

SHAPE = {
    "pattern": "M-*-M",
    "layers": 5,
    "hidden_size": 48,
    "intermediate_size": 64,
    "mamba": MambaConfig(state=6, head_dim=8, heads=4, groups=2, chunk=8),
}


def test_keeping_everything_is_the_identity() -> None:
    model = ours(**SHAPE)
    twin = cut(model, Keep.all_of(model.config))
    assert twin.config == model.config
    ids = tokens(model.config, 2, 20)
    assert torch.equal(twin(ids), model(ids))


def test_a_child_loads_as_the_stock_class_and_has_the_rows_that_were_chosen(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = ours(**SHAPE)
    ids = tokens(model.config, 4, 20)
    statistics = measure(model, [Windows(ids)])
    assert statistics.sites == site_widths(model.config)
    target = model.config.replace(hidden_size=32, intermediate_size=40)
    keep = choose(model.config, target, statistics)
    child = cut(model, keep)
    source, state = model.state_dict(), child.state_dict()
    hidden = torch.tensor(keep.hidden)
    for block in (0, 4):
        name = f"blocks.{block}.mixer"
        assert torch.equal(
            state[f"{name}.in_proj.weight"], source[f"{name}.in_proj.weight"][:, hidden]
        )
        assert torch.equal(
            state[f"{name}.out_proj.weight"], source[f"{name}.out_proj.weight"][hidden]
        )
        assert torch.equal(state[f"{name}.dynamics.A_log"], source[f"{name}.dynamics.A_log"])
    save(child, tmp_path / "child")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "child").eval()
    with torch.no_grad():
        difference = (stock(ids).logits - child.eval()(ids)).abs().max()
    assert difference <= 1e-5
    assert load(tmp_path / "child").config == child.config


def test_counts_of_many_shapes_are_those_of_each() -> None:
    for pattern, heads in (("M-*-M", 4), ("MMM", 0)):
        sizes = MambaConfig(state=6, head_dim=8, heads=4, groups=2, proj_bias=heads == 0)
        source = ModelConfig(
            layers=len(pattern), pattern=pattern, hidden_size=48, heads=heads, kv_heads=heads // 2,
            vocab_size=61, mamba=sizes,
        )  # fmt: skip
        child = source.replace(hidden_size=20, intermediate_size=12 * (heads > 0))
        values = (child.layers, 20, child.intermediate_size, child.heads, child.kv_heads)
        total, inside = count(source, *(np.array([value]) for value in values))
        assert total[0] == parameters(child)
        assert inside[0] == non_embedding_parameters(child)


def test_a_budget_finds_a_shape() -> None:
    source = ours(**{**SHAPE, "hidden_size": 128, "intermediate_size": 256}).config
    budget = BudgetTarget(non_embedding_parameters=0.6, axes=("hidden", "mlp"))
    found = within(source, budget).config(source, 0)
    assert abs(non_embedding_parameters(found) / non_embedding_parameters(source) - 0.6) < 0.04
    assert found.mamba == source.mamba
