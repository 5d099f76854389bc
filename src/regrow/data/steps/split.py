"""Train, validation and test, by file: documents of one file are never on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from regrow.core.seed import derive
from regrow.data import engine
from regrow.data.config import CurateConfig


def assign(
    files: Mapping[str, Collection[str]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """The split of each file: by a hash of its name, then repaired so that no source lacks one.

    A source with at least as many files as there are splits gets a file in each; one with fewer
    fills the splits in their order. A file that several sources share has one split in all.

    Args:
        files: for each source, its files.
        shares: split to share of the files, in order of need (train first); they sum to 1.
        seed: of the hash.

    Returns:
        File to split.
    """
    draw = {file: derive(seed, "split", file) for group in files.values() for file in group}
    splits = {file: _by_share(value / 2**63, shares) for file, value in draw.items()}
    groups = [sorted(group, key=lambda f: (draw[f], f)) for _, group in sorted(files.items())]
    groups.sort(key=len)  # the smallest have the least choice
    # One pass does it unless sources share files; then a repair may undo an earlier one.
    for _ in range(8):
        moved = 0
        for group in groups:
            moved += _repair(group, groups, splits, tuple(shares))
        if not moved:
            break
    return splits


def _by_share(value: float, shares: Mapping[str, float]) -> str:
    total = 0.0
    for name, share in shares.items():
        total += share
        if value < total:
            return name
    return list(shares)[-1]


def _repair(
    group: list[str], groups: list[list[str]], splits: dict[str, str], names: tuple[str, ...]
) -> bool:
    """Give ``group`` a file in each split that it can have; whether anything moved."""
    moved = False
    for needed in names[: len(group)]:
        if any(splits[file] == needed for file in group):
            continue

        def cost(file: str) -> tuple[int, int]:
            here = splits[file]
            own = sum(splits[other] == here for other in group) == 1 and here in names[: len(group)]
            others = sum(
                file in other and sum(splits[f] == here for f in other) == 1
                for other in groups
                if other is not group
            )
            return (int(own), others)

        best = min(group, key=cost)  # ties: the first by hash
        splits[best] = needed
        moved = True
    return moved


class Split:
    """Adds the column ``split``; drops nothing."""

    name = "split"

    def __init__(self, config: CurateConfig) -> None:
        self.shares = config.split.shares()
        self.seed = config.seed

    def apply(self, frame: engine.Frame) -> engine.Frame:
        """Look up each row's split by its file."""
        files: dict[str, list[str]] = {}
        for row in engine.rows(frame.select("source", "file").distinct()):
            files.setdefault(row["source"], []).append(row["file"])
        splits = assign(files, self.shares, self.seed)
        table = engine.from_columns({"file": list(splits), "split": list(splits.values())})
        joined = frame.join(table, on="file")
        return joined.with_column("reason", engine.when(joined["split"].is_null(), "no split"))
