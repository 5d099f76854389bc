"""Exact duplicates: of documents with equal text one stays, whatever their white space."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from regrow.data import components, engine
from regrow.data.clusters import WORK, Clusters, cluster_exhibits
from regrow.data.keep import Keep

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

_HASHES = ("same_first", "same_second")
_SEEDS = (0, 0x9E3779B9)


class Exact:
    """Adds ``exact_copies``; drops all but one of the documents equal up to white space.

    Texts are compared by 128 bits, two hashes of the text with each run of white space as one
    space; case and punctuation count.

    Raises:
        ConfigError: ``duplicates.keep`` names a source that there is not.
    """

    name = "exact"
    version = 2
    per_document = False

    def __init__(self, config: CurateConfig) -> None:
        self.keep = Keep(config)
        self.clusters = Clusters(
            "exact_copies", "same text as one that is", config.duplicates.scope, self.keep
        )

    def reads(self) -> tuple[str, ...]:
        """The text, the source, and what the policy goes by."""
        return tuple(dict.fromkeys(("text", "source", *self.keep.reads())))

    def makes(self) -> pa.Schema:
        """How many documents a cluster has."""
        return self.clusters.makes()

    def key(self) -> Any:
        """The scope, and whom the clusters keep."""
        return {"scope": self.clusters.scope, **self.keep.key()}

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Find the clusters; only ids and hashes are ever held."""
        work = folder / WORK
        work.mkdir()
        functions = engine.expressions()
        plain = functions.normalize(frame["text"], white_space=True)
        hashes = [
            functions.hash(plain, seed=seed).alias(name)
            for name, seed in zip(_HASHES, _SEEDS, strict=True)
        ]
        columns = [frame["id"], *self.keep.columns(frame), *hashes]
        marks = engine.stored(frame.select(*columns), work / "marks")
        within, across = self._edges(marks, work)
        self.clusters.write(marks, within, across, folder)
        shutil.rmtree(work)
        return self.clusters.scores(frame, folder)

    def _edges(self, marks: engine.Frame, work: Path) -> list[engine.Frame]:
        if engine.num_rows(marks) * len(_HASHES) > components.DRIVER_KEYS:
            keyed = marks.select("id", "source", *_HASHES)
            return components.stars(keyed, _HASHES, work / "stars")
        table = marks.select("id", "source", *_HASHES).to_arrow().combine_chunks()
        texts = components.Texts(table["id"].combine_chunks(), table["source"].combine_chunks())
        keys = [tuple(table[name].to_numpy() for name in _HASHES)]
        return [engine.from_arrow(edges) for edges in components.stars_here(texts, keys)]

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """All but one of each cluster go."""
        return self.clusters.verdicts(scores, folder)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """The clusters."""
        del scores
        return cluster_exhibits(folder, "equal texts")
