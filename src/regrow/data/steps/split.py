"""Train, validation and test, by file: documents of one file are never on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from regrow.core.seed import derive
from regrow.data import engine

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

# A held-out split of a small source may get next to nothing by chance; below this part of its
# share it is given more files.
ENOUGH = 0.5


def assign(
    files: Mapping[str, Mapping[str, int]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """The split of each file: by a hash of its name, then repaired where a source came off badly.

    A source with at least as many files as there are splits gets a file in each, and where its
    files allow it half of each split's share in bytes; one with fewer files fills the splits in
    their order. A file that several sources share has one split in all.

    Args:
        files: for each source, its files with their bytes.
        shares: split to share of the files, in order of need (train first); they sum to 1.
        seed: of the hash.

    Returns:
        File to split.
    """
    draw = {file: derive(seed, "split", file) for group in files.values() for file in group}
    splits = {file: _by_share(value / 2**63, shares) for file, value in draw.items()}
    groups = [
        _Group(sorted(sizes, key=lambda f: (draw[f], f)), sizes, shares)
        for _, sizes in sorted(files.items())
    ]
    groups.sort(key=lambda group: len(group.files))  # the smallest have the least choice
    owners: dict[str, list[_Group]] = {}
    for group in groups:
        splits.update(dict.fromkeys(group.bulk(), next(iter(shares))))
        for file in group.files:
            owners.setdefault(file, []).append(group)
    # Once round does it, unless sources share files: then a repair may undo an earlier one.
    for _ in range(8):
        if not sum(group.repair(splits, owners) for group in groups):
            break
    return splits


def _by_share(value: float, shares: Mapping[str, float]) -> str:
    total = 0.0
    for name, share in shares.items():
        total += share
        if value < total:
            return name
    return list(shares)[-1]


class _Group:
    """The files of one source.

    Args:
        files: in the order in which they are tried.
        sizes: their bytes.
        shares: split to share.
    """

    def __init__(
        self, files: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, float]
    ) -> None:
        self.files, self.sizes = files, sizes
        total = sum(sizes.values())
        self.fair = {name: share * total for name, share in shares.items()}
        self.needed = tuple(shares)[: len(files)]

    def bulk(self) -> list[str]:
        """The file that is most of the source, if there is one: it is for training."""
        return [file for file in self.files if self.sizes[file] > sum(self.fair.values()) / 2]

    def inside(self, split: str, splits: Mapping[str, str]) -> list[str]:
        """The source's files in one split."""
        return [file for file in self.files if splits[file] == split]

    def repair(self, splits: dict[str, str], owners: Mapping[str, list[_Group]]) -> int:
        """Move files until each split has enough or none can be spared; how many moved."""
        moves = 0
        for split in self.needed:
            while True:
                inside = self.inside(split, splits)
                enough = ENOUGH * self.fair[split]
                if inside and sum(self.sizes[file] for file in inside) >= enough:
                    break
                spare = self._spare(split, splits, keep_enough=bool(inside))
                if inside:  # more of it is not worth another source's last file of a split
                    spare = [f for f in spare if not self._cost(f, split, splits, owners)[0]]
                if not spare:
                    break
                splits[min(spare, key=lambda file: self._cost(file, split, splits, owners))] = split
                moves += 1
        return moves

    def _spare(self, split: str, splits: Mapping[str, str], keep_enough: bool) -> list[str]:
        """Files of other splits that can go without leaving those without a file.

        Args:
            split: the receiver.
            splits: of each file.
            keep_enough: whether the giver must also keep its part of its share.
        """
        spare = []
        for giver in set(self.fair) - {split}:
            inside = self.inside(giver, splits)
            held = sum(self.sizes[file] for file in inside)
            if giver not in self.needed:
                spare.extend(inside)
            elif len(inside) > 1:
                least = ENOUGH * self.fair[giver] if keep_enough else 0
                spare.extend(file for file in inside if held - self.sizes[file] >= least)
        order = {file: number for number, file in enumerate(self.files)}
        return sorted(spare, key=order.__getitem__)

    def _cost(
        self,
        file: str,
        split: str,
        splits: Mapping[str, str],
        owners: Mapping[str, list[_Group]],
    ) -> tuple[int, float]:
        """How bad it is to move a file; among equals the first by hash is moved."""
        here = splits[file]
        robbed = sum(
            here in other.needed and other.inside(here, splits) == [file]
            for other in owners[file]
            if other is not self
        )
        # A file far above the fair share would make the held-out split most of the source.
        excess = max(0.0, self.sizes[file] - 1.5 * self.fair[split])
        return robbed, excess


class Split:
    """Adds the column ``split``; drops nothing."""

    name = "split"
    version = 2
    per_document = False

    def __init__(self, config: CurateConfig) -> None:
        self.shares = config.split.shares()
        self.seed = config.seed

    def reads(self) -> tuple[str, ...]:
        """What tells files apart, and the text, whose length counts."""
        return ("text", "source", "file")

    def makes(self) -> pa.Schema:
        """The split."""
        return pa.schema([("split", pa.string())])

    def key(self) -> Any:
        """Shares and seed."""
        return {"shares": self.shares, "seed": self.seed}

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Look up each row's split by its file."""
        del folder
        sizes = frame.select("source", "file", frame["text"].length_bytes().alias("bytes"))
        sizes = sizes.groupby("source", "file").agg(sizes["bytes"].sum())
        files: dict[str, dict[str, int]] = {}
        for row in engine.rows(sizes):
            files.setdefault(row["source"], {})[row["file"]] = row["bytes"]
        splits = assign(files, self.shares, self.seed)
        table = engine.from_columns({"file": list(splits), "split": list(splits.values())})
        return frame.select("id", "file").join(table, on="file").select("id", "split")

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """All stay."""
        del folder
        return engine.all_kept(scores)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """Nothing: the page has a table of its own."""
        del scores, folder
        return []
