"""The loader against the contract of the data order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrow.core.errors import ConfigError
from regrow.data.loader import IGNORED, Loader, Phase, evaluation_batches
from regrow.data.shards import Shard, Vocabulary

Make = Callable[..., Shard]
fixture_ok = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def shards(make_shard: Make) -> dict[str, Shard]:
    return {
        "code": make_shard("code", [50, 3, 120, 1, 0, 64, 30, 200]),
        "books": make_shard("books", [300, 7]),
        "rest": make_shard("rest", [5] * 40),
    }


def loader(shards: dict[str, Shard], mask: bool = False, seed: int = 5, **phases: int) -> Loader:
    weights = {"code": 0.5, "books": 0.3, "rest": 0.2}
    return Loader(
        shards,
        [Phase(name, weights, samples) for name, samples in (phases or {"all": 120}).items()],
        sequence=16,
        seed=seed,
        document_mask=mask,
    )


@fixture_ok
@given(
    world=st.integers(1, 4),
    micro=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_any_division_of_the_work_covers_the_same_windows(
    shards: dict[str, Shard], world: int, micro: int, accumulation: int, seed: int
) -> None:
    """Rank r takes samples k with k mod world = r; each epoch has each window once."""
    source = Loader({"code": shards["code"]}, [Phase("p", {"code": 1.0}, 10**6)], 16, seed)
    epoch = source.windows["code"]
    step = world * micro * accumulation
    for start in range(0, 3 * epoch, epoch):
        seen: Counter[int] = Counter()
        for rank in range(world):
            mine = [k for k in range(start, start + epoch) if k % world == rank]
            for at in range(0, len(mine), micro):
                seen.update(source.where(k, 1)[0][1] for k in mine[at : at + micro])
        assert seen == Counter(range(epoch))
    # A global step holds the same samples however it is cut.
    whole = [source.sample(k).tokens for k in range(2 * step)]
    cut = [t for first in range(0, 2 * step, micro) for t in source.batch(first, micro).tokens]
    assert torch.equal(torch.stack(whole), torch.stack(cut[: 2 * step]))


@fixture_ok
@given(first=st.integers(0, 119), count=st.integers(0, 40), mask=st.booleans())
def test_batch_is_stacked_samples(
    shards: dict[str, Shard], first: int, count: int, mask: bool
) -> None:
    made = loader(shards, mask)
    count = min(count, made.samples - first)
    batch = made.batch(first, count)
    assert batch.tokens.shape == (count, 16)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    for row in range(count):
        sample = loader(shards, mask).sample(first + row)  # a fresh one: nothing is remembered
        assert torch.equal(sample.tokens, batch.tokens[row])
        assert torch.equal(sample.targets, batch.targets[row])
        if mask:
            assert sample.documents is not None
            assert batch.documents is not None
            assert torch.equal(sample.documents, batch.documents[row])
        else:
            assert sample.documents is None
            assert batch.documents is None


def test_windows_are_the_shards_own_tokens(shards: dict[str, Shard]) -> None:
    made = loader(shards)
    for k in range(60):
        sample = made.sample(k)
        tokens = np.asarray(shards[sample.source].tokens, dtype=np.int64)
        start = sample.window * 16
        assert sample.tokens.tolist() == tokens[start : start + 16].tolist()
        assert sample.targets.tolist() == tokens[start + 1 : start + 17].tolist()


def test_documents_are_kept_apart_exactly_at_their_starts(shards: dict[str, Shard]) -> None:
    """Against a slow reading of the definition, token by token."""
    made = loader(shards, mask=True)
    for k in range(made.samples):
        sample = made.sample(k)
        shard = shards[sample.source]
        starts = set(np.asarray(shard.document_starts).tolist())
        first = sample.window * 16
        number = 0
        assert sample.documents is not None
        for position in range(16):
            if position and first + position in starts:
                number += 1
            assert sample.documents[position] == number
            following = first + position + 1
            expected = IGNORED if following in starts else int(shard.tokens[following])
            assert sample.targets[position] == expected
        # What is masked is the first token of a document: the one after an end-of-text mark.
        masked = sample.targets == IGNORED
        assert (sample.tokens[masked] == 0).all()


def test_sources_follow_the_weights_across_phases_and_epochs_go_on(
    shards: dict[str, Shard],
) -> None:
    first, second = {"code": 0.8, "books": 0.2}, {"code": 0.2, "books": 0.5, "rest": 0.3}
    made = Loader(shards, [Phase("a", first, 33), Phase("b", second, 61)], 16, 1)
    places = [(made.sample(k).source, made.sample(k).window) for k in range(94)]
    for weights, part in ((first, places[:33]), (second, places[33:])):
        counts: Counter[str] = Counter()
        for n, (source, _) in enumerate(part, 1):
            counts[source] += 1
            assert all(abs(counts[s] - n * w) < 1 for s, w in weights.items())
    for source in shards:
        drawn = [window for name, window in places if name == source]
        size = made.windows[source]
        for at in range(0, len(drawn), size):
            epoch = drawn[at : at + size]
            assert len(set(epoch)) == len(epoch)


def test_epochs_and_seeds_shuffle_differently(shards: dict[str, Shard]) -> None:
    def windows(seed: int) -> list[int]:
        only = Loader({"code": shards["code"]}, [Phase("p", {"code": 2}, 100)], 16, seed)
        return [w for _, w in only.where(0, 2 * only.windows["code"])]

    half = len(windows(1)) // 2
    assert windows(1) == windows(1)
    assert windows(1)[:half] != windows(1)[half:]
    assert windows(1) != windows(2)


def test_ledger_counts_what_samples_drew(shards: dict[str, Shard]) -> None:
    made = loader(shards, a=40, b=50)
    for n in (0, 1, 39, 40, 41, 90):
        counts = Counter(source for source, _ in made.where(0, n))
        ledger = made.ledger(n)
        assert {s: v["tokens"] for s, v in ledger.items()} == {s: 16 * counts[s] for s in shards}
        for source, entry in ledger.items():
            assert entry["epochs"] == counts[source] / made.windows[source]


def test_nothing_beyond_the_end(shards: dict[str, Shard]) -> None:
    made = loader(shards)
    assert made.samples == 120
    for first, count in ((120, 1), (-1, 1), (100, 21)):
        with pytest.raises(IndexError):
            made.batch(first, count)


@pytest.mark.parametrize("mask", [False, True])
def test_evaluation_covers_each_token_once_in_order(make_shard: Make, mask: bool) -> None:
    shard = make_shard("code", [50, 3, 0, 41])  # 98 tokens with the end marks
    tokens = np.asarray(shard.tokens, dtype=np.int64)
    starts = set(np.asarray(shard.document_starts).tolist())
    batches = list(evaluation_batches(shard, 16, 4, document_mask=mask))
    assert [len(b.tokens) for b in batches] == [4, 3]
    targets = torch.cat([b.targets for b in batches]).flatten()
    expected = [IGNORED if mask and i in starts else int(tokens[i]) for i in range(1, 98)]
    assert targets[:97].tolist() == expected
    assert (targets[97:] == IGNORED).all()
    inputs = torch.cat([b.tokens for b in batches]).flatten()
    assert inputs[:97].tolist() == tokens[:97].tolist()
    assert (inputs >= 0).all()


def test_evaluation_stops_at_max_tokens(make_shard: Make) -> None:
    shard = make_shard("code", [500])
    counted = sum(
        int((b.targets != IGNORED).sum()) for b in evaluation_batches(shard, 16, 3, max_tokens=100)
    )
    assert counted == 100


def test_evaluation_of_a_shard_shorter_than_a_window(make_shard: Make) -> None:
    (batch,) = evaluation_batches(make_shard("code", [4]), 16, 8)
    assert int((batch.targets != IGNORED).sum()) == 4
    assert list(evaluation_batches(make_shard("none", [0]), 16, 8)) == []


class TestErrors:
    def test_unknown_source_is_named_with_its_nearest(self, shards: dict[str, Shard]) -> None:
        with pytest.raises(ConfigError, match=r"'cod'.*did you mean code"):
            Loader(shards, [Phase("p", {"cod": 1.0}, 10)], 16, 0)

    @pytest.mark.parametrize("weight", [0.0, -0.5])
    def test_weights_must_be_positive(self, shards: dict[str, Shard], weight: float) -> None:
        with pytest.raises(ConfigError, match=f"'books' is {weight}"):
            Loader(shards, [Phase("p", {"code": 1.0, "books": weight}, 10)], 16, 0)

    def test_window_longer_than_the_source(self, shards: dict[str, Shard]) -> None:
        with pytest.raises(ConfigError, match=r"'rest' has 240 tokens.*shorten.*239"):
            Loader(shards, [Phase("p", {"rest": 1.0}, 10)], 240, 0)
        assert Loader(shards, [Phase("p", {"rest": 1.0}, 10)], 239, 0).windows == {"rest": 1}

    def test_no_phase_no_samples_no_sequence(self, shards: dict[str, Shard]) -> None:
        with pytest.raises(ConfigError, match="no phase"):
            Loader(shards, [], 16, 0)
        with pytest.raises(ConfigError, match="'p' has 0 samples"):
            Loader(shards, [Phase("p", {"code": 1.0}, 0)], 16, 0)
        with pytest.raises(ConfigError, match="sequence is 0"):
            Loader(shards, [Phase("p", {"code": 1.0}, 1)], 0, 0)

    def test_shards_of_two_tokenizers(self, make_shard: Make, tmp_path: Path) -> None:
        del tmp_path
        mixed = {
            "a": make_shard("a", [100]),
            "b": make_shard("b", [100], Vocabulary(2000, 0, "e" * 64)),
        }
        with pytest.raises(ConfigError, match="different tokenizers"):
            Loader(mixed, [Phase("p", {"a": 1, "b": 1}, 5)], 16, 0)


def test_is_far_faster_than_a_trainer_eats(make_shard: Make) -> None:
    """A small model takes about 10,000 tokens/s; loading has to be 20 times that and more."""
    shards = {name: make_shard(name, [700] * 300) for name in ("code", "books", "rest")}
    weights = {"code": 0.5, "books": 0.3, "rest": 0.2}
    made = Loader(shards, [Phase("p", weights, 4000)], 256, 0, document_mask=True)
    made.batch(0, 16)
    started = time.perf_counter()
    for first in range(0, 1600, 16):
        made.batch(first, 16)
    assert 1600 * 256 / (time.perf_counter() - started) > 200_000
