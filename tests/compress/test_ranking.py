"""What stays, from given statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regrow.compress.importance import Statistics, site_widths
from regrow.compress.ranking import Activations, choose, top
from regrow.core.errors import ConfigError
from tests.compress.makers import small


def given(config=None, windows: int = 7) -> tuple[Statistics, dict[str, np.ndarray]]:
    """Statistics of random per-window scores, and the scores, (windows, channels)."""
    config = config or small()
    draw = np.random.default_rng(0)
    scores = {site: draw.random((windows, width)) for site, width in site_widths(config).items()}
    count = config.layers + 1
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
