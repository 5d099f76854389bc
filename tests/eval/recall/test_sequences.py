"""Token sequences: what their rules say, checked on the ids alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.eval.recall import IGNORED, AssociativeRecall, SelectiveCopying, TokenSequences

SEQUENCES = [AssociativeRecall(1), AssociativeRecall(16), SelectiveCopying(5, 30, 4)]


@given(st.integers(0, 2**40), st.integers(0, 2**45), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_recall_asks_for_each_key_once_and_wants_its_value(seed: int, index: int, n: int) -> None:
    task = AssociativeRecall(n)
    tokens, targets = (part[0].tolist() for part in task.batch(seed, index, 1))
    given_pairs = dict(zip(tokens[0 : 2 * n : 2], tokens[1 : 2 * n : 2], strict=True))
    assert len(given_pairs) == n, "keys are distinct"
    assert all(0 <= key < 20 <= value < 36 for key, value in given_pairs.items())
    asked = {place: target for place, target in enumerate(targets) if target != IGNORED}
    assert list(asked) == list(range(2 * n, 4 * n - 1, 2)), "only the second half counts"
    assert sorted(tokens[place] for place in asked) == sorted(given_pairs)
    for place, target in asked.items():
        assert target == given_pairs[tokens[place]]
        if place + 1 < len(tokens):
            assert tokens[place + 1] == target, "the answer follows, as in text"


@given(st.integers(0, 2**40), st.integers(0, 2**45), st.integers(1, 9), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_copying_wants_the_symbols_in_order(seed: int, index: int, data: int, noise: int) -> None:
    task = SelectiveCopying(data, noise, symbols=6)
    tokens, targets = (part[0].tolist() for part in task.batch(seed, index, 1))
    body, rest = tokens[: data + noise], tokens[data + noise :]
    symbols = [token for token in body if token < 6]
    assert len(symbols) == data
    assert body.count(6) == noise
    assert rest[0] == 7
    assert targets[data + noise :] == symbols
    assert set(targets[: data + noise]) <= {IGNORED}
    assert rest[1:] == symbols[:-1]


@pytest.mark.parametrize("task", SEQUENCES, ids=repr)
def test_shapes_and_counts_are_as_declared(task: TokenSequences) -> None:
    tokens, targets = task.batch(3, 0, 7)
    assert tokens.shape == targets.shape == (7, task.length)
    assert tokens.dtype == targets.dtype == np.int64
    assert ((targets != IGNORED).sum(1) == task.num_targets).all()
    assert tokens.min() >= 0
    assert tokens.max() < task.vocab_size


@pytest.mark.parametrize("task", SEQUENCES[1:], ids=repr)
def test_a_sample_depends_on_seed_and_number_alone(task: TokenSequences) -> None:
    whole = task.batch(5, 10, 6)
    for row in range(6):
        alone = task.batch(5, 10 + row, 1)
        assert (alone.tokens == whole.tokens[row]).all()
        assert (alone.targets == whole.targets[row]).all()
    assert len({row.tobytes() for row in whole.tokens}) == 6, "numbers differ, samples differ"
    assert (task.batch(6, 10, 6).tokens != whole.tokens).any()


@pytest.mark.parametrize(
    "task", [AssociativeRecall(8, values=5), SelectiveCopying(8, 4, 5)], ids=repr
)
def test_no_guess_from_the_surroundings_beats_chance(task: TokenSequences) -> None:
    """The best answer by place, by the token before, and of all: none is right more often."""
    tokens, targets = task.batch(0, 0, 3000)
    rows, places = np.nonzero(targets != IGNORED)
    wanted = targets[rows, places]
    for seen in (places, tokens[rows, places], np.zeros_like(places)):
        table = np.zeros((task.length + task.vocab_size, task.vocab_size))
        np.add.at(table, (seen, wanted), 1)
        counts = table.sum(1)
        best = table.max(1)[counts > 1000] / counts[counts > 1000]
        assert best.size
        # The largest of a few frequencies lies a little above; 5 standard errors bound it.
        slack = 5 * np.sqrt(task.chance / counts[counts > 1000].min())
        assert best.max() < task.chance + slack
        assert best.min() >= task.chance - 1e-9


@pytest.mark.parametrize("pairs", [0, 21])
def test_more_pairs_than_keys_are_refused(pairs: int) -> None:
    with pytest.raises(ConfigError, match=f"pairs {pairs}"):
        AssociativeRecall(pairs)


def test_impossible_copying_is_refused() -> None:
    with pytest.raises(ConfigError, match="data 0"):
        SelectiveCopying(data=0)
