"""Star edges and components, on the driver and by the engine's verbs, against brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.data import components, engine

pytest.importorskip("daft")

Pairs = Sequence[tuple[int, int]]
Labels = dict[str, str]


def name(node: int) -> str:
    return f"n{node:05d}"


def edges_of(pairs: Pairs) -> pa.Table:
    ends = [[name(pair[side]) for pair in pairs] for side in (0, 1)]
    return pa.Table.from_arrays(
        [pa.array(e, pa.large_string()) for e in ends], schema=components.EDGES
    )


def by_union_find(pairs: Iterable[tuple[str, str]]) -> Labels:
    """Every end of an edge to the smallest of its component."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for first, second in pairs:
        one, other = sorted((root(first), root(second)))
        parent[other] = one
    return {node: root(node) for node in parent}


def labels(table: pa.Table) -> Labels:
    found = dict(zip(table["id"].to_pylist(), table["component"].to_pylist(), strict=True))
    assert len(found) == table.num_rows, "an id stands twice"
    return found


def chain(size: int, order: np.ndarray | None = None) -> Pairs:
    nodes = range(size) if order is None else order.tolist()
    return list(pairwise(nodes))


def clique(first: int, size: int) -> Pairs:
    return [(first + i, first + j) for i in range(size) for j in range(i)]


SHUFFLED = np.random.default_rng(0).permutation(10_000)
GRAPHS: dict[str, Pairs] = {
    "chain of 10,000": chain(10_000),
    "chain of 10,000 in any order": chain(10_000, SHUFFLED),
    "star": [(0, i) for i in range(1, 500)],
    "star around the largest": [(i, 499) for i in range(499)],
    "clique": clique(0, 40),
    "two cliques and an edge": [*clique(0, 30), *clique(100, 30), (17, 121)],
    "two cliques apart": [*clique(0, 30), *clique(100, 30)],
    "a loop and a double": [(3, 3), (1, 2), (2, 1), (1, 2)],
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_both_ways_give_the_same_labels(graph: str, tmp_path: Path) -> None:
    edges = edges_of(GRAPHS[graph])
    expected = by_union_find((name(a), name(b)) for a, b in GRAPHS[graph])
    assert labels(components.components_here(edges)) == expected
    found = labels(components.contracted(engine.from_arrow(edges), tmp_path / "work").to_arrow())
    alone = {node for node, label in expected.items() if node == label} - set(found)
    assert {**found, **{node: node for node in alone}} == expected
    assert len(list((tmp_path / "work").iterdir())) == 1, "earlier rounds are left on the disk"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60))
def test_random_graphs(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> None:
    pairs = [(a, b) for a, b in pairs if a != b] or [(0, 1)]
    edges = edges_of(pairs)
    expected = by_union_find((name(a), name(b)) for a, b in pairs)
    assert labels(components.components_here(edges)) == expected
    folder = tmp_path_factory.mktemp("graph") / "work"
    assert labels(components.contracted(engine.from_arrow(edges), folder).to_arrow()) == expected


def test_no_edges_no_components(tmp_path: Path) -> None:
    edges = components.EDGES.empty_table()
    assert components.components_here(edges).num_rows == 0
    frame = components.components(engine.from_arrow(edges), tmp_path / "work")
    assert engine.num_rows(frame) == 0


def test_above_the_bound_the_engine_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = edges_of([*clique(0, 5), *clique(10, 5)])
    below = components.components(engine.from_arrow(edges), tmp_path / "below")
    assert not (tmp_path / "below").exists()
    monkeypatch.setattr(components, "DRIVER_EDGES", 19)
    above = components.components(engine.from_arrow(edges), tmp_path / "above")
    assert (tmp_path / "above").exists()
    assert labels(above.to_arrow()) == labels(below.to_arrow())


KEYED = st.lists(
    st.tuples(st.sampled_from("xyz"), st.lists(st.integers(0, 9), min_size=3, max_size=3))
)


def graph_by_hand(rows: Sequence[tuple[str, str, list[int]]], inside: bool) -> Labels:
    """Components of texts that share a key of the same band, within a source or anywhere."""
    pairs = [
        (one[0], other[0])
        for number, one in enumerate(rows)
        for other in rows[:number]
        if any(a == b for a, b in zip(one[2], other[2], strict=True))
        and (one[1] == other[1] or not inside)
    ]
    return by_union_find(pairs)


Stars = Callable[[list[tuple[str, str, list[int]]], Path], list[pa.Table]]


def here(rows: list[tuple[str, str, list[int]]], folder: Path) -> list[pa.Table]:
    del folder
    ids = pa.array([row[0] for row in rows], pa.large_string())
    texts = components.Texts(ids, pa.array([row[1] for row in rows], pa.large_string()))
    keys = np.array([row[2] for row in rows], np.uint64).reshape(-1, 3)
    return components.stars_here(texts, ((column,) for column in keys.T))


def by_verbs(rows: list[tuple[str, str, list[int]]], folder: Path) -> list[pa.Table]:
    flat = [(i, s, band, key) for i, s, keys in rows for band, key in enumerate(keys)]
    columns = dict(
        zip(("id", "source", "band", "key"), map(list, zip(*flat, strict=True)), strict=True)
    )
    found = components.stars(engine.from_columns(columns), ("band", "key"), folder / "stars")
    return [frame.to_arrow() for frame in found]


@pytest.mark.parametrize("stars", [here, by_verbs])
@settings(max_examples=10, deadline=None)
@given(KEYED.filter(bool))
def test_stars_connect_what_shares_a_key(
    tmp_path_factory: pytest.TempPathFactory, stars: Stars, drawn: list[tuple[str, list[int]]]
) -> None:
    rows = [(name(7 * i % 101), source, keys) for i, (source, keys) in enumerate(drawn)]
    within, across = stars(rows, tmp_path_factory.mktemp("stars"))
    sources = {row[0]: row[1] for row in rows}
    for table, same in ((within, True), (across, False)):
        for first, second in zip(
            table["first"].to_pylist(), table["second"].to_pylist(), strict=True
        ):
            assert (sources[first] == sources[second]) is same
            assert first < second or not same
    assert labels(components.components_here(within)) == graph_by_hand(rows, inside=True)
    both = pa.concat_tables(
        [t.select(["first", "second"]).cast(components.EDGES) for t in (within, across)]
    )
    assert labels(components.components_here(both)) == graph_by_hand(rows, inside=False)


def test_a_key_of_many_texts_gives_one_edge_less(tmp_path: Path) -> None:
    rows = [(name(i), "ab"[i % 2], [5, 5, i]) for i in range(100)]
    for stars in (here, by_verbs):
        edges = sum(table.num_rows for table in stars(rows, tmp_path / stars.__name__))
        assert edges == 99


def test_all_columns_of_a_key_must_agree() -> None:
    ids = pa.array(["a", "b", "c", "d"], pa.large_string())
    texts = components.Texts(ids, pa.array(["s"] * 4, pa.large_string()))
    first, second = np.array([1, 1, 1, 2], np.uint64), np.array([7, 8, 7, 7], np.uint64)
    within, across = components.stars_here(texts, [(first, second)])
    assert within.to_pylist() == [{"first": "a", "second": "c"}]
    assert across.num_rows == 0
