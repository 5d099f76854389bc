"""What stays, from given statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from regrow.compress.depth import layer_blocks
from regrow.compress.importance import Statistics, site_widths
from regrow.compress.prune_config import PruneConfig
from regrow.compress.ranking import Activations, choose, keep_for, target_for, top
from regrow.compress.slicing import Keep, cut
from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from tests.compress.makers import small
from tests.model.makers import perturb


def given(config=None, windows: int = 7) -> tuple[Statistics, dict[str, np.ndarray]]:
    """Statistics of random per-window scores, and the scores, (windows, channels)."""
    config = config or small()
    draw = np.random.default_rng(0)
    scores = {site: draw.random((windows, width)) for site, width in site_widths(config).items()}
    count = len(layer_blocks(config)) + 1
    cosines = torch.from_numpy(draw.random((count, count)))
    return (
        Statistics(
            windows,
            100,
            {"mean": {site: torch.from_numpy(a.sum(0)) for site, a in scores.items()}},
            {"mean": {site: torch.from_numpy((a**2).sum(0)) for site, a in scores.items()}},
            cosines,
        ),
        scores,
    )


def test_each_aggregation_is_its_formula() -> None:
    statistics, scores = given()
    for site, a in scores.items():
        for name, expected in (
            ("l2", np.sqrt((a**2).sum(0))),
            ("mean", a.mean(0)),
            ("var", a.var(0)),
        ):
            found = Activations(statistics, small(), name).channels(site)
            np.testing.assert_allclose(found.numpy(), expected)
    with pytest.raises(ConfigError, match="hold mean, not var"):
        Activations(statistics, small(), sequence="var")


def test_hidden_scores_sum_over_all_norms_and_heads_over_their_channels() -> None:
    config = small()
    statistics, scores = given(config)
    norms = [site for site in scores if site.endswith("norm")]
    assert len(norms) == 9
    expected = sum(np.sqrt((scores[site] ** 2).sum(0)) for site in norms)
    known = Activations(statistics, config)
    np.testing.assert_allclose(known.hidden().numpy(), expected)
    channels = np.sqrt((scores["blocks.2.mixer.o_proj"] ** 2).sum(0)).reshape(8, 6)
    expected = np.sqrt((channels**2).sum(1))
    np.testing.assert_allclose(known.heads(2).numpy(), expected)


def test_heads_are_ranked_inside_their_group() -> None:
    config = small()
    statistics, _ = given(config)
    keep = choose(config, config.replace(heads=4), statistics)
    for block, heads in keep.heads.items():
        scores = Activations(statistics, config).heads(block).numpy()
        expected = sorted([*np.argsort(-scores[:4])[:2], *(4 + np.argsort(-scores[4:])[:2])])
        assert list(heads) == expected
    one = choose(config, config.replace(heads=3, kv_heads=1), statistics)
    for block, heads in one.heads.items():
        groups = np.linalg.norm(
            Activations(statistics, config).heads(block).numpy().reshape(2, 4), axis=1
        )
        best = int(groups.argmax())
        assert one.kv_heads[block] == (best,)
        assert all(head // 4 == best for head in heads)


def test_ties_keep_the_first() -> None:
    assert top(torch.tensor([1.0, 2.0, 1.0, 1.0]), 3) == (0, 1, 2)


def prune_config(**settings: Any) -> PruneConfig:
    return load_config(PruneConfig, base={"model": "m", "scores": "s", **settings})


def test_the_settings_of_prune_decide() -> None:
    config = small()
    statistics, scores = given(config)
    settings = prune_config(shape={"intermediate_size": 20}, batch_aggregation="var")
    target = target_for(settings, config, statistics)
    keep = keep_for(settings, config, target, statistics)
    assert keep.config(config) == target
    for block, neurons in keep.neurons.items():
        spread = scores[f"blocks.{block}.mixer.down_proj"].var(0)
        assert neurons == tuple(sorted(np.argsort(-spread)[:20]))
    lacking = prune_config(shape={"intermediate_size": 20}, sequence_aggregation="l2")
    with pytest.raises(ConfigError, match=r"hold mean, not l2; run importance with"):
        keep_for(lacking, config, target, statistics)


def test_layers_alone_need_no_scores_and_width_says_that_it_does() -> None:
    config = small()
    settings = load_config(PruneConfig, base={"model": "m", "shards": "t", "shape": {"layers": 3}})
    asked: list[Any] = []

    def damage(runs: list[Any]) -> list[float]:
        asked.extend(runs)
        return [1.0, 0.5]

    target = target_for(settings, config)
    keep = keep_for(settings, config, target, damage=damage)
    assert asked == [(1,), (2,)]
    assert keep.layers == (0, 1, 3)
    assert keep.hidden == tuple(range(32))
    with pytest.raises(ConfigError, match="scores is missing: hidden_size"):
        keep_for(settings, config, target.replace(hidden_size=16), damage=damage)


def test_the_pattern_of_a_hybrid_is_known_from_scores_and_from_a_list() -> None:
    config = ModelConfig(
        pattern="M-*M-", layers=5, hidden_size=16, heads=2, vocab_size=61,
        mamba=MambaConfig(state=4, head_dim=4, heads=4, groups=2),
    )  # fmt: skip
    statistics, _ = given(config)
    statistics.cosines.fill_(0.0)
    statistics.cosines[3, 4] = 90.0  # of 100: block 3 changes its input least
    settings = prune_config(shape={"layers": 4})
    target = target_for(settings, config, statistics)
    assert target.pattern == "M-*-"
    assert keep_for(settings, config, target, statistics).layers == (0, 1, 2, 4)
    dropped = load_config(PruneConfig, base={"model": "m", "depth": {"drop": [1, 4]}})
    assert target_for(dropped, config).pattern == "M*M"
    with pytest.raises(ConfigError, match="without an attention block"):
        target_for(load_config(PruneConfig, base={"model": "m", "depth": {"drop": [2]}}), config)


@pytest.mark.parametrize(
    ("source", "target", "partners"),
    [
        # Groups of 4 of which 3 stay: i = 2K - L + 1 = 3 = K, and head 2K - i + 1 = 4.
        ({"heads": 8, "kv_heads": 2}, {"heads": 6}, [(3, 4)]),
        ({"heads": 8, "kv_heads": 2}, {"heads": 4}, [(1, 4), (2, 3)]),
        ({"heads": 8, "kv_heads": 1}, {"heads": 6}, [(5, 8), (6, 7)]),
        ({"heads": 8, "kv_heads": 8}, {"heads": 5, "kv_heads": 5}, [(3, 8), (4, 7), (5, 6)]),
        ({"heads": 8, "kv_heads": 2}, {"heads": 8}, []),
    ],
)
def test_heads_take_up_the_difference_to_those_that_go(
    source: dict[str, int], target: dict[str, int], partners: list[tuple[int, int]]
) -> None:
    """Against the formula, and the tensors against it written out."""
    config = small(**source, qkv_bias=True, layers=2)
    model = Decoder(config)
    perturb(model)
    statistics, _ = given(config)
    keep = choose(config, config.replace(**target), statistics, merge=True)
    child, own = cut(model, keep).state_dict(), source["heads"] == source["kv_heads"]
    size = source["heads"] if own else source["heads"] // source["kv_heads"]
    for block in (0, 2):
        scores = Activations(statistics, config).heads(block).numpy()
        expected = set()
        for first in range(0, config.heads, size):
            ranked = first + np.argsort(-scores[first : first + size])
            expected |= {(ranked[i - 1], ranked[partner - 1]) for i, partner in partners}
        assert set(keep.merged.get(block, ())) == expected
        gone = dict(expected)
        for name, along in (("q_proj.weight", 0), ("q_proj.bias", 0), ("o_proj.weight", 1)):
            check_merged(model, child, block, name, along, keep.heads[block], gone)
        for name in ("k_proj.weight", "v_proj.weight", "v_proj.bias"):
            kept = keep.kv_heads[block]
            check_merged(model, child, block, name, 0, kept, gone if own else {})
    assert Keep.from_json(keep.as_json()) == keep


def check_merged(
    model: Decoder, child: Any, block: int, name: str, along: int, kept: Any, gone: Any
) -> None:
    whole = model.state_dict()[f"blocks.{block}.mixer.{name}"].unflatten(along, (-1, 6))
    part = child[f"blocks.{block}.mixer.{name}"].unflatten(along, (-1, 6))
    for place, head in enumerate(kept):
        one = whole.select(along, head)
        expected = 2 * one - whole.select(along, gone[head]) if head in gone else one
        torch.testing.assert_close(part.select(along, place), expected)


def test_merging_needs_half_of_every_group() -> None:
    config = small()
    statistics, _ = given(config)
    settings = prune_config(shape={"heads": 2}, head_merge="residual")
    for call in (
        lambda: target_for(settings, config, statistics),
        lambda: keep_for(settings, config, config.replace(heads=2), statistics),
    ):
        with pytest.raises(ConfigError) as caught:
            call()
        assert "1 of 4 heads of a group stay, fewer than half" in str(caught.value)
        assert "nearest legal shape.heads: 4" in str(caught.value)
    enough = prune_config(shape={"heads": 4}, head_merge="residual")
    keep = keep_for(enough, config, target_for(enough, config, statistics), statistics)
    assert all(len(pairs) == 4 for pairs in keep.merged.values())
    with pytest.raises(ValueError, match="must stay"):
        replace(keep, merged={0: ((keep.heads[0][0], keep.heads[0][1]),)}).config(config)
