"""A family as its page sees it: members with their relations, children with their comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from regrow.report.record import RunFolder, items, mapping, number, text

_VERBS = {
    "continued": "continue",
    "pruned": "prune",
    "distilled": "distill",
    "scratch": "pretrain",
    "base": "pretrain",
}
# A twin that saw at least this many times the tokens is listed as the longer-trained one.
_LONGER = 1.5


@dataclass(frozen=True, slots=True)
class Member:
    """One model of the family.

    Args:
        index: its place in ``models``; names need not be unique.
        name: its name.
        kind: base, continued, pruned, distilled, scratch, ...
        parent: place of the model that it was made from.
        twin: place of the model of equal shape and tokens that was trained from scratch.
        data: its entry in ``models``.
        stage: the run folder that made it, where it is still there.
    """

    index: int
    name: str
    kind: str
    parent: int | None
    twin: int | None
    data: dict[str, Any]
    stage: RunFolder | None

    def number(self, key: str) -> float | int | None:
        """One of its figures."""
        return number(self.data.get(key))

    @property
    def bits(self) -> dict[str, Any]:
        """Bits per byte by domain, with ``all``."""
        return mapping(self.data.get("bits_per_byte"))

    @property
    def is_scratch(self) -> bool:
        """Whether it stands only for comparison."""
        return self.kind == "scratch"

    @property
    def verb(self) -> str:
        """The verb that made it."""
        if self.stage is not None and self.stage.verb != "run":
            return self.stage.verb
        return _VERBS.get(self.kind, "")

    def where(self, key: str) -> str:
        """The place of a figure in the family's result."""
        return f"result.json: models[{self.index}].{key}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A child beside the models of its shape that were made otherwise."""

    child: Member
    twin: Member | None
    pruned: Member | None
    longer: Member | None

    @property
    def difference(self) -> float | None:
        """Loss of the child minus that of its twin, in nats per token; negative: child better."""
        child = self.child.number("loss")
        twin = self.twin.number("loss") if self.twin else None
        return child - twin if child is not None and twin is not None else None


class Family:
    """The members of a family's ``result.json`` and what can be said of them.

    Args:
        folder: the family's run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        entries = [mapping(entry) for entry in items(folder.result.get("models"))]
        names: dict[str, int] = {}
        for index, entry in enumerate(entries):
            names.setdefault(_name(entry, index), index)
        self.members = [
            Member(
                index,
                _name(entry, index),
                text(entry.get("kind")) or "model",
                _other(names, entry.get("parent"), index),
                _other(names, entry.get("twin"), index),
                entry,
                _stage(folder.path, entry.get("path")),
            )
            for index, entry in enumerate(entries)
        ]

    @property
    def base(self) -> Member | None:
        """The model that the others came from: the first base, else the first without a parent."""
        grown = [m for m in self.members if not m.is_scratch]
        named = [m for m in grown if m.kind == "base"]
        return next(iter([*named, *(m for m in grown if m.parent is None)]), None)

    def domains(self) -> list[str]:
        """Domains of the bits per byte, ``all`` last."""
        found: dict[str, None] = {}
        for member in self.members:
            found |= dict.fromkeys(map(str, member.bits))
        return [*(d for d in found if d != "all"), *(["all"] if "all" in found else [])]

    def parent(self, member: Member) -> Member | None:
        """The model that ``member`` was made from."""
        return None if member.parent is None else self.members[member.parent]

    def children(self, member: Member) -> list[Member]:
        """The models that were made from ``member``."""
        return [m for m in self.members if m.parent == member.index]

    def ancestors(self, member: Member) -> Iterator[Member]:
        """Parent, grandparent and so on; ends where a chain bites its own tail."""
        seen = {member.index}
        while (above := self.parent(member)) is not None and above.index not in seen:
            seen.add(above.index)
            yield above
            member = above

    def start_tokens(self, member: Member) -> float:
        """Training tokens that went into the model before its own stage."""
        if member.is_scratch:
            return 0.0
        return float(sum(a.number("tokens") or 0 for a in self.ancestors(member)))

    def share_of_base(self, member: Member) -> float | None:
        """Its non-embedding parameters as a part of the base's."""
        base = self.base
        whole = base.number("non_embedding_parameters") if base else None
        own = member.number("non_embedding_parameters")
        return own / whole if own is not None and whole else None

    def final_children(self) -> list[Member]:
        """The smaller models that the family was grown for."""
        return [m for m in self.members if m.kind == "distilled"]

    def grown(self) -> list[Member]:
        """What the family gives: neither twins nor steps on the way to a child."""
        return [
            m
            for m in self.members
            if not m.is_scratch and not (m.kind == "pruned" and self.children(m))
        ]

    def comparisons(self) -> list[Comparison]:
        """Every child that has something of its shape to be compared with."""
        found = []
        for child in self.members:
            if child.is_scratch or child.kind == "pruned":
                continue
            twin = None if child.twin is None else self.members[child.twin]
            above = self.parent(child)
            pruned = above if above is not None and above.kind == "pruned" else None
            longer = self._longer(twin) if twin else None
            if twin or (pruned and child.kind == "distilled"):
                found.append(Comparison(child, twin, pruned, longer))
        return found

    def _longer(self, twin: Member) -> Member | None:
        """The model of the twin's shape, also from scratch, that saw about twice the tokens."""
        size, tokens = _shape(twin), twin.number("tokens")
        if size is None or not tokens:
            return None
        for other in self.members:
            if other.is_scratch and other.index != twin.index and _shape(other) == size:
                seen = other.number("tokens")
                if seen is not None and seen >= _LONGER * tokens:
                    return other
        return None

    def beside(self, member: Member) -> list[Member]:
        """Its twin, and the longer-trained one: those that stand beside it in the tree."""
        for comparison in self.comparisons():
            if comparison.child.index == member.index:
                found = (comparison.twin, comparison.longer)
                return [m for m in found if m is not None and m.is_scratch]
        return []

    def colours(self) -> dict[int, int]:
        """A colour for each member; twins have that of their sibling."""
        colour: dict[int, int] = {}
        free = 0
        for member in self.members:
            if member.is_scratch or member.kind == "pruned":
                continue
            colour[member.index] = free
            for other in self.beside(member):
                colour.setdefault(other.index, free)
            above = self.parent(member)
            if above is not None and above.kind == "pruned":
                colour.setdefault(above.index, free)
            free += 1
        for member in self.members:
            if member.index not in colour:
                colour[member.index] = free
                free += 1
        return colour


def _shape(member: Member) -> tuple[float, float] | None:
    sizes = member.number("parameters"), member.number("non_embedding_parameters")
    if sizes[0] is None or sizes[1] is None:
        return None
    return sizes[0], sizes[1]


def _name(entry: dict[str, Any], index: int) -> str:
    return text(entry.get("name")) or f"model {index + 1}"


def _other(names: dict[str, int], name: Any, index: int) -> int | None:
    found = names.get(name) if isinstance(name, str) else None
    return None if found == index else found


def _stage(root: Path, path: Any) -> RunFolder | None:
    """The run folder of a member: its model lies in ``<stage>/export``, below the family's, or in a
    part of a stage, ``<stage>/<part>/export``.

    The stage is looked for by its name, so that a family that was moved is still found.
    """
    if not isinstance(path, str) or "\0" in path:
        return None
    parts = PurePath(path).parts
    if len(parts) < 2 or parts[-1] != "export" or parts[-2] in ("..", "/"):
        return None
    # A part of a stage first: its last name alone may be that of another stage.
    for depth in (4, 3, 2):
        within = parts[-depth:-1]
        folder = root.joinpath(*within)
        inside = len(within) == depth - 1 and ".." not in within and "/" not in within
        if inside and (folder / "result.json").is_file():
            return RunFolder.read(folder)
    return None
