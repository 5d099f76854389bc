"""Near duplicates: MinHash bands, star edges, components, and one copy of each that stays."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.atomic import read_json
from regrow.core.seed import derive
from regrow.data import components, engine, exhibits, verify
from regrow.data.clusters import SUMMARY, WORK, Clusters, cluster_exhibits
from regrow.data.keep import Keep
from regrow.data.lsh import resolve
from regrow.data.minhash import banded

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig


class Fuzzy:
    """Adds ``fuzzy_copies``; drops all but one of the texts that are nearly the same.

    Source: Data, Data Everywhere (arXiv 2407.06380), Broder 1997 for the signatures.

    Raises:
        ConfigError: ``duplicates.keep`` names a source that there is not.
    """

    name = "fuzzy"
    version = 1
    per_document = False

    def __init__(self, config: CurateConfig) -> None:
        self.keep = Keep(config)
        self.clusters = Clusters(
            "fuzzy_copies", "near duplicate of one that is", config.duplicates.scope, self.keep
        )
        self.lsh = resolve(config.fuzzy)
        self.verify = config.fuzzy.verify == "exact"
        self.seed = derive(config.seed, "minhash") % 2**32

    def reads(self) -> tuple[str, ...]:
        """The text, the source, and what the policy goes by."""
        return tuple(dict.fromkeys(("text", "source", *self.keep.reads())))

    def makes(self) -> pa.Schema:
        """How many documents a cluster has."""
        return self.clusters.makes()

    def key(self) -> Any:
        """Everything: whom the clusters keep is part of what is stored."""
        lsh = self.lsh
        return {
            "bands": [lsh.bands, lsh.rows],
            "shingle": [lsh.unit, lsh.n],
            "verify": lsh.threshold - verify.SLACK if self.verify else None,
            "scope": self.clusters.scope,
            "seed": self.seed,
            **self.keep.key(),
        }

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Find the clusters; the text is read once, and once more to verify."""
        work = folder / WORK
        work.mkdir()
        columns = [frame["id"], frame["text"], *self.keep.columns(frame)]
        kept = ("id", *self.keep.names())
        marks = banded(frame.select(*columns), self.lsh, self.seed, kept)
        marks = engine.stored(marks, work / "marks")
        within, across = self._edges(marks, work)
        refine = None
        if self.verify:
            least = self.lsh.threshold - verify.SLACK
            refine = partial(verify.verified, frame, self.lsh, least, work / "verify")
        self.clusters.write(marks, within, across, folder, refine)
        shutil.rmtree(work)
        return self.clusters.scores(frame, folder)

    def _edges(self, marks: engine.Frame, work: Path) -> list[engine.Frame]:
        if engine.num_rows(marks) * self.lsh.bands > components.DRIVER_KEYS:
            signed = marks.where(marks["bands"].not_null()).select("id", "source", "bands")
            return components.stars(signed.explode("bands"), ("bands",), work / "stars")
        table = marks.select("id", "source", "bands").to_arrow()
        table = table.filter(pc.is_valid(table["bands"])).combine_chunks()
        texts = components.Texts(table["id"].combine_chunks(), table["source"].combine_chunks())
        bands = table["bands"].combine_chunks().flatten().to_numpy().reshape(-1, self.lsh.bands)
        found = components.stars_here(texts, ((column,) for column in bands.T))
        return [engine.from_arrow(edges) for edges in found]

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """All but one of each cluster go."""
        return self.clusters.verdicts(scores, folder)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """The S-curve with what it misses, and the clusters."""
        del scores
        lsh = self.lsh
        missed, extra = lsh.masses()
        s = np.linspace(0, 1, 101)
        shown = [
            exhibits.curve(
                f"share of near duplicates found by {lsh.bands} bands of {lsh.rows} hashes",
                s.tolist(),
                {"found": lsh.found(s).tolist()},
                "Jaccard similarity of two texts",
                "probability of sharing a band",
                {"threshold": lsh.threshold, "half are found": lsh.half()},
            ),
            exhibits.table(
                "what the bands do, if every similarity were equally frequent",
                ["figure", "value"],
                [
                    ["shingle", f"{lsh.n} {lsh.unit}s"],
                    ["found at the threshold", round(float(lsh.found(lsh.threshold)), 4)],
                    ["missed: area above the threshold", round(missed, 4)],
                    ["too much: area below the threshold", round(extra, 4)],
                ],
            ),
        ]
        refined = read_json(folder / SUMMARY).get("refined")
        if refined:
            rows = [[name, value] for name, value in refined.items()]
            shown.append(exhibits.table("copies verified", ["figure", "value"], rows))
        return shown + cluster_exhibits(folder, "near duplicates")
