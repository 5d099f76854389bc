"""Students before any training: importance against chance, and the ways to sum up importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.compress.arms import latest
from experiments.compress.prepare import BATCH_AGGREGATIONS, SEQUENCE_AGGREGATIONS, Size, Students


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut the teacher to the student's size.

    Args:
        kind: ``importance``, ``random``, ``depth`` or ``aggregation``.
        seed: of the calibration text; random cuts belong to one so that each seed has its own.
        index: which of a seed's random cuts.
        batch, sequence: of an aggregation.
    """

    kind: str
    seed: int
    index: int = 0
    batch: str = ""
    sequence: str = ""

    @property
    def name(self) -> str:
        """Of its line."""
        more = [self.batch, self.sequence] if self.batch else [str(self.seed), str(self.index)]
        return "-".join(["zero", self.kind, *more])


def due(results: list[dict[str, Any]], seeds: int, size: Size) -> list[Cut]:
    """Cuts that are not scored."""
    wanted = []
    for seed in range(seeds):
        wanted.append(Cut("importance", seed))
        wanted += [Cut("random", seed, index) for index in range(size.randoms)]
        wanted.append(Cut("depth", seed))
    wanted += [
        Cut("aggregation", 0, 0, batch, sequence)
        for batch in BATCH_AGGREGATIONS
        for sequence in SEQUENCE_AGGREGATIONS
    ]
    done = latest(results)
    return [cut for cut in wanted if cut.name not in done]


def run(cut: Cut, students: Students) -> dict[str, Any]:
    """Cut and score; the line of the results."""
    if cut.kind == "importance":
        made = students.pruned(cut.seed)
    elif cut.kind == "random":
        made = students.random(cut.seed * students.size.randoms + cut.index)
    elif cut.kind == "depth":
        made = students.shallow(cut.seed)
    else:
        made = students.pruned(
            cut.seed, batch_aggregation=cut.batch, sequence_aggregation=cut.sequence
        )
    passed = students.importance(cut.seed) if cut.kind == "importance" else {}
    return {
        "part": "zero",
        "name": cut.name,
        "kind": cut.kind,
        "seed": cut.seed,
        "batch": cut.batch,
        "sequence": cut.sequence,
        "loss": made["loss"],
        "shape": made["shape"],
        "parameters": made["parameters"],
        "non_embedding_parameters": made["non_embedding_parameters"],
        "importance_tokens": passed.get("tokens", 0),
        "importance_flops": passed.get("flops", 0),
    }
