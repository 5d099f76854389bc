"""Which file goes to which split."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.data.steps.split import assign

SHARES = {"train": 0.92, "validation": 0.04, "test": 0.04}

own_files = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.integers(1, 5000), min_size=1, max_size=40), min_size=1
)


def named(sizes: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    return {s: {f"{s}/{i}": size for i, size in enumerate(group)} for s, group in sizes.items()}


@given(own_files, st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_each_source_has_files_in_each_split(sizes: dict[str, list[int]], seed: int) -> None:
    files = named(sizes)
    splits = assign(files, SHARES, seed)
    assert set(splits) == {f for group in files.values() for f in group}
    for group in files.values():
        found = {splits[file] for file in group}
        assert found == set(list(SHARES)[: len(group)])


@given(
    st.integers(3, 30),
    st.data(),
    st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_sources_that_share_files_too(count: int, data: st.DataObject, seed: int) -> None:
    """As code and docstrings do: one is drawn from the other's files."""
    code = {f"stdlib/{i}": data.draw(st.integers(1, 900)) for i in range(count)}
    part = data.draw(st.sets(st.sampled_from(sorted(code)), min_size=3))
    files = {"code": code, "docstrings": dict.fromkeys(part, 10), "zzz": {"z/1": 5}}
    splits = assign(files, SHARES, seed)
    assert {splits[f] for f in code} == set(SHARES)
    assert {splits[f] for f in part} == set(SHARES)
    assert splits["z/1"] == "train"


def test_shares_are_kept_and_small_sources_are_not_starved() -> None:
    files = {
        "large": {f"large/{i}": 100 for i in range(5000)},
        "small": {f"small/{i}": 100 for i in range(78)},
    }
    for seed in range(10):
        splits = assign(files, SHARES, seed)
        counts = Counter(splits[f] for f in files["large"])
        assert abs(counts["train"] / 5000 - 0.92) < 0.015
        small = Counter(splits[f] for f in files["small"])
        assert small["validation"] >= 2  # half of its share of 3.1
        assert small["test"] >= 2
        assert small["train"] >= 60


def test_a_file_stays_where_it_is_when_others_come() -> None:
    before = {"s": {f"s/{i}": 100 for i in range(1000)}}
    after = {"s": {f"s/{i}": 100 for i in range(1200)}, "t": {"t/0": 5}}
    old, new = assign(before, SHARES, 1), assign(after, SHARES, 1)
    assert all(new[file] == split for file, split in old.items())


def test_the_bulk_of_a_source_is_never_held_out() -> None:
    files = {"s": {"s/huge": 10_000, **{f"s/{i}": 100 for i in range(20)}}}
    for seed in range(20):
        splits = assign(files, {"train": 0.9, "validation": 0.1}, seed)
        assert splits["s/huge"] == "train"
        assert "validation" in splits.values()


def test_order_of_the_input_does_not_matter() -> None:
    files = {s: {f"{s}/{i}": i + 1 for i in range(20)} for s in "abc"}
    turned = {s: dict(reversed(list(files[s].items()))) for s in reversed(files)}
    assert assign(files, SHARES, 9) == assign(turned, SHARES, 9)


def test_two_splits_only() -> None:
    splits = assign({"s": {f"s/{i}": 1 for i in range(9)}}, {"train": 0.9, "validation": 0.1}, 0)
    assert set(splits.values()) == {"train", "validation"}
