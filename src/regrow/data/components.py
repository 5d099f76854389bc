"""From things that copies share to groups of copies: star edges, and connected components.

Texts that have a key in common (a hash, a band of a signature) are joined in a star: an edge from
the smallest id to each other one, so that a key of m texts gives m − 1 edges and not m². Stars are
built in two levels, within each source and then across, so that the first level alone is the graph
of each source by itself. Components are labelled by their smallest id.

Up to a bound both are done on the driver, with sorting and SciPy; above it by the engine's verbs,
where components come from alternating large-star and small-star operations until only stars are
left. Source: Kiveris et al., Connected Components in MapReduce and Beyond (SoCC 2014).
Legend: N texts, E edges.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.errors import RunError
from regrow.data import engine

Ints = npt.NDArray[np.int64]

# 24 bytes a key and 150 an edge at the peak: 2.4 GB and 3 GB.
DRIVER_KEYS = 100_000_000
DRIVER_EDGES = 20_000_000
# Rounds are few (O(log² n) in theory, 4 to 6 in practice): more mean a defect.
_MAX_ROUNDS = 64

EDGES = pa.schema([("first", pa.large_string()), ("second", pa.large_string())])
MEMBERS = pa.schema([("id", pa.large_string()), ("component", pa.large_string())])


class Texts:
    """Texts by number, in the order of their sources and then of their ids.

    Args:
        ids: ``(N,)`` unique strings.
        sources: ``(N,)`` strings.
    """

    def __init__(self, ids: pa.Array, sources: pa.Array) -> None:
        names = sources.dictionary_encode()
        columns = pa.table({"source": names.indices, "id": ids})
        by_source = [("source", "ascending"), ("id", "ascending")]
        self.order: Ints = pc.sort_indices(columns, by_source).to_numpy().astype(np.int64)
        """``(N,)`` rows as they came, in the order of their numbers."""
        self.sources: Ints = names.indices.to_numpy()[self.order].astype(np.int64)
        by_id = pc.sort_indices(ids).to_numpy().astype(np.int64)
        self.ids = ids.take(pa.array(by_id))
        """``(N,)`` ids, rising; their places are ranks."""
        places = np.empty(len(by_id), np.int64)
        places[by_id] = np.arange(len(by_id))
        self.ranks: Ints = places[self.order]
        """``(N,)`` rank of the id of each number."""

    def edges(self, first: Ints, second: Ints) -> pa.Table:
        """Pairs of ranks as pairs of ids."""
        columns = [self.ids.take(pa.array(ranks)) for ranks in (first, second)]
        return pa.Table.from_arrays(columns, schema=EDGES)


def stars_here(texts: Texts, keys: Iterable[Sequence[npt.NDArray[np.uint64]]]) -> list[pa.Table]:
    """Edges within sources, and edges across them, on the driver.

    Args:
        texts: that have keys.
        keys: sets of keys; one is ``(N,)`` arrays by row, which have to be equal all together.
    """
    size = len(texts.ranks)
    within, across = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for columns in keys:
        ordered = [column[texts.order] for column in columns]
        # Stable: numbers rise within a key, so a source's texts stand together, smallest id first.
        order = (
            np.lexsort(ordered[::-1])
            if len(ordered) > 1
            else np.argsort(ordered[0], None, "stable")
        )
        fresh = np.zeros(size, bool)
        fresh[:1] = True
        for column in ordered:
            fresh[1:] |= column[order[1:]] != column[order[:-1]]
        lengths = np.diff(np.append(np.flatnonzero(fresh), size))
        shared = np.repeat(lengths > 1, lengths)
        order, fresh = order[shared], fresh[shared]
        if not len(order):
            continue
        ranks, sources = texts.ranks[order], texts.sources[order]
        leads = fresh.copy()
        leads[1:] |= sources[1:] != sources[:-1]
        lead = ranks[leads][np.cumsum(leads) - 1]
        within.append(_packed(lead[~leads], ranks[~leads], size))
        heads = ranks[leads]
        group_starts = np.flatnonzero(fresh[leads])
        root = np.repeat(
            np.minimum.reduceat(heads, group_starts),
            np.diff(np.append(group_starts, len(heads))),
        )
        across.append(_packed(root[root != heads], heads[root != heads], size))
    made = [np.unique(np.concatenate(parts)) for parts in (within, across)]
    return [texts.edges(*np.divmod(packed, size or 1)) for packed in made]


def _packed(first: Ints, second: Ints, size: int) -> Ints:
    """Each different pair of ranks as one number."""
    return np.unique(first * size + second)


def stars(keyed: engine.Frame, names: Sequence[str], folder: Path) -> list[engine.Frame]:
    """Edges within sources, and edges across them, by the engine's verbs.

    Args:
        keyed: ``id``, ``source`` and the columns of the key, none of them null; a text has as many
            rows as it has keys.
        names: columns of the key.
        folder: to be made, for what is used twice.
    """
    key = list(names)
    local = keyed.groupby(*key, "source").agg(
        keyed["id"].min().alias("lead"), keyed["id"].count().alias("texts")
    )
    local = engine.stored(local, folder / "leads")
    several = local.where(local["texts"] > 1).select(*key, "source", "lead")
    within = keyed.join(several, on=[*key, "source"])
    within = within.where(within["id"] != within["lead"])
    top = local.groupby(*key).agg(
        local["lead"].min().alias("root"), local["lead"].count().alias("sources")
    )
    top = top.where(top["sources"] > 1).select(*key, "root")
    across = local.join(top, on=key)
    across = across.where(across["lead"] != across["root"])
    made = {
        "within": within.select(within["lead"].alias("first"), within["id"].alias("second")),
        "across": across.select(across["root"].alias("first"), across["lead"].alias("second")),
    }
    return [engine.stored(edges.distinct(), folder / name) for name, edges in made.items()]


def components(edges: engine.Frame, folder: Path) -> engine.Frame:
    """``id`` and ``component``, its smallest id, for every end of an edge.

    Args:
        edges: ``first`` and ``second``, ids.
        folder: to be made, for what is used twice.
    """
    if engine.num_rows(edges) <= DRIVER_EDGES:
        return engine.from_arrow(components_here(edges.to_arrow()))
    return contracted(edges, folder)


def components_here(edges: pa.Table) -> pa.Table:
    """Components on the driver.

    Args:
        edges: ``(E,)`` of ``first`` and ``second``, ids.

    Returns:
        ``id`` and ``component``, sorted by id.
    """
    ends = pa.chunked_array([*edges["first"].chunks, *edges["second"].chunks], pa.large_string())
    ids = pc.unique(ends)
    ids = ids.take(pc.sort_indices(ids))
    first, second = (
        pc.index_in(edges[name], value_set=ids).to_numpy().astype(np.int64) for name in EDGES.names
    )
    labels = connected(first, second, len(ids))
    return pa.Table.from_arrays([ids, ids.take(pa.array(labels))], schema=MEMBERS)


def connected(first: Ints, second: Ints, size: int) -> Ints:
    """``(size,)`` the smallest member of each node's component.

    Args:
        first: ``(E,)`` nodes.
        second: ``(E,)`` nodes.
        size: nodes are 0 to size − 1.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    _, smallest = np.unique(labels, return_index=True)
    found: Ints = smallest[labels].astype(np.int64)
    return found


def contracted(edges: engine.Frame, folder: Path) -> engine.Frame:
    """Components by the engine's verbs: edges are turned until each component is a star.

    Args:
        edges: ``first`` and ``second``, ids.
        folder: to be made; the last two rounds are held in it.

    Raises:
        RunError: no end after many more rounds than it can take.
    """
    low = engine.expressions().when(edges["first"] < edges["second"], edges["first"])
    low = low.otherwise(edges["second"])
    high = engine.expressions().when(edges["first"] < edges["second"], edges["second"])
    high = high.otherwise(edges["first"])
    graph = edges.select(low.alias("low"), high.alias("high"))
    graph = engine.stored(graph.where(graph["low"] != graph["high"]).distinct(), folder / "0")
    for turn in range(1, _MAX_ROUNDS):
        place = folder / str(turn)
        larger = engine.stored(_large_star(graph), place / "large")
        graph = engine.stored(_small_star(larger), place / "small")
        shutil.rmtree(place / "large")
        shutil.rmtree(folder / str(turn - 1))
        if _only_stars(graph):
            roots = graph.select("low").distinct()
            roots = roots.select(roots["low"].alias("id"), roots["low"].alias("component"))
            return graph.select(graph["high"].alias("id"), graph["low"].alias("component")).concat(
                roots
            )
    raise RunError(f"components did not settle within {_MAX_ROUNDS} rounds; please report this")


def _large_star(graph: engine.Frame) -> engine.Frame:
    """Each node ties its larger neighbours to the smallest of its neighbours and itself."""
    turned = graph.select(graph["high"].alias("node"), graph["low"].alias("other"))
    both = graph.select(graph["low"].alias("node"), graph["high"].alias("other")).concat(turned)
    smallest = both.groupby("node").agg(both["other"].min().alias("least"))
    joined = both.join(smallest, on="node")
    joined = joined.where(joined["other"] > joined["node"])
    least = engine.expressions().when(joined["least"] < joined["node"], joined["least"])
    return joined.select(
        least.otherwise(joined["node"]).alias("low"), joined["other"].alias("high")
    ).distinct()


def _small_star(graph: engine.Frame) -> engine.Frame:
    """Each node ties its smaller neighbours and itself to the smallest of them."""
    smallest = graph.groupby("high").agg(graph["low"].min().alias("least"))
    joined = graph.join(smallest, on="high")
    joined = joined.where(joined["low"] != joined["least"])
    moved = joined.select(joined["least"].alias("low"), joined["low"].alias("high"))
    own = smallest.select(smallest["least"].alias("low"), smallest["high"])
    return moved.concat(own).distinct()


def _only_stars(graph: engine.Frame) -> bool:
    """Whether no node has two roots, and no root has one."""
    members = graph.select("high").distinct()
    if engine.num_rows(members) != engine.num_rows(graph):
        return False
    roots = graph.select(graph["low"].alias("high")).distinct()
    return engine.num_rows(roots.join(members, on="high", how="semi")) == 0
