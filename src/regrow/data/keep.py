"""Which of several copies stays: a policy, and ties by the content's hash, then by id.

The default prefers the older copy, which is the finding of Data, Data Everywhere (arXiv
2407.06380): where several snapshots hold the same text, the copy of the older one serves better.
What a copy is judged by becomes one string whose parts stand in the order of their importance, so
that the smallest string of a cluster is the copy that stays, and the first part in which another
one differs is why it goes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.errors import ConfigError, InputError
from regrow.core.registry import nearest
from regrow.data import engine
from regrow.data.settings.duplicates import Highest, SourcePriority
from regrow.data.settings.sources import PythonSource

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

# Between the parts; no date, number or hash holds it, and no id does.
_PART = "\x1f"
_LAST = "~"  # behind every digit: copies of which the figure is unknown
_DIGITS = 14  # of a date down to the second
KEPT = "kept"
_BY_DATE = ("older", "newer")

_Part = Callable[[pa.RecordBatch], list[str]]


class Keep:
    """The policy of ``duplicates.keep``.

    Args:
        config: of the curation.

    Raises:
        ConfigError: ``source_priority`` names a source that there is not; ``older`` or ``newer``
            of the text of the Python installation alone, which has no dates.
    """

    def __init__(self, config: CurateConfig) -> None:
        self.policy = config.duplicates.keep
        self.sources = config.source_names()
        if self.policy in _BY_DATE and all(isinstance(s, PythonSource) for s in config.sources):
            raise ConfigError(
                f"duplicates.keep: {self.policy}, but texts of the Python installation have no "
                "date; leave it out, or set keep: {source_priority: [...]}"
            )
        if isinstance(self.policy, SourcePriority):
            named = self.policy.source_priority
            for name in named:
                if name not in self.sources:
                    raise ConfigError(
                        f"duplicates.keep.source_priority: there is no source {name!r}"
                        f"{nearest(name, self.sources)} (sources: {', '.join(self.sources)})"
                    )
            rest = [name for name in self.sources if name not in named]
            self.sources = [*dict.fromkeys(named), *rest]

    def reads(self) -> tuple[str, ...]:
        """Columns that it needs beside ``id``, ``source`` and ``text``."""
        if isinstance(self.policy, Highest):
            return (self.policy.highest,)
        return ("date",) if self.policy in (None, *_BY_DATE) else ()

    def key(self) -> Any:
        """All that the choice depends on, as JSON."""
        policy = self.policy
        return {
            "keep": policy if policy is None or isinstance(policy, str) else policy.model_dump(),
            "sources": list(self.sources) if "source" in self._labels() else None,
        }

    def columns(self, frame: engine.Frame) -> list[Any]:
        """What of a document decides, as columns: never its text.

        Args:
            frame: ``source``, ``text`` and what ``reads`` names.
        """
        functions = engine.expressions()
        names = dict.fromkeys(("source", *self.reads()))
        return [
            *(frame[name] for name in names),
            functions.length_bytes(frame["text"]).alias("keep_bytes"),
            functions.hash(frame["text"]).alias("keep_hash"),
        ]

    def names(self) -> tuple[str, ...]:
        """Names of ``columns``."""
        return (*dict.fromkeys(("source", *self.reads())), "keep_bytes", "keep_hash")

    def check(self, marks: engine.Frame) -> None:
        """Refuse a policy that has nothing to go by.

        Args:
            marks: has ``columns``, of all documents.

        Raises:
            InputError: ``older`` or ``newer`` where no document has a date; ``highest`` of a
                column that is not of numbers.
        """
        if self.policy in _BY_DATE:
            if not engine.num_rows(marks.where(marks["date"].not_null()).limit(1)):
                raise InputError(
                    f"duplicates.keep: {self.policy}, but no document has a date; set date_from or "
                    "fields.date of a source, or keep: {source_priority: [...]}"
                )
        elif isinstance(self.policy, Highest):
            name = self.policy.highest
            kind = marks.select(name).schema().to_pyarrow_schema().field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise InputError(
                    f"duplicates.keep.highest: {name} is a column of {kind}, not of numbers"
                )

    def choose(self, members: engine.Frame, folder: Path) -> engine.Frame:
        """``id``, ``component``, ``kept_id`` and ``why`` of every copy.

        Args:
            members: ``id``, ``component`` and ``columns``.
            folder: to be made, for what is used twice.
        """
        text = pa.large_string()
        keyed = engine.map_batches(
            members,
            partial(key_batch, self._parts()),
            ("id", *self.names()),
            pa.schema([("key", text)]),
            keep=("id", "component"),
            processes=False,
        )
        keyed = engine.stored(keyed, folder)
        best = keyed.groupby("component").agg(keyed["key"].min().alias("best"))
        return engine.map_batches(
            keyed.join(best, on="component"),
            partial(why_batch, (*self._labels().values(), "first by hash", "first by id")),
            ("key", "best"),
            pa.schema([("kept_id", text), ("why", text)]),
            keep=("id", "component"),
            processes=False,
        )

    def _labels(self) -> dict[str, str]:
        """What is compared, in its order, and how the copy that stays differs in it."""
        if self.policy is None:
            return {"date": "older", "source": "of an earlier source"}
        if isinstance(self.policy, SourcePriority):
            return {"source": "of an earlier source"}
        if isinstance(self.policy, Highest):
            return {"column": f"higher in {self.policy.highest}"}
        return {self.policy: {"longest": "longer"}.get(self.policy, self.policy)}

    def _parts(self) -> tuple[_Part, ...]:
        if self.policy is None:
            return (partial(_dates, False), partial(_sources, tuple(self.sources)))
        if isinstance(self.policy, SourcePriority):
            return (partial(_sources, tuple(self.sources)),)
        if isinstance(self.policy, Highest):
            return (partial(_figures, self.policy.highest),)
        if self.policy == "longest":
            return (partial(_figures, "keep_bytes"),)
        return (partial(_dates, self.policy == "newer"),)


def key_batch(parts: Sequence[_Part], batch: pa.RecordBatch) -> Mapping[str, Any]:
    """The ``key`` of each copy; the smallest of a cluster stays."""
    columns = [part(batch) for part in parts]
    columns.append([f"{value:016x}" for value in batch["keep_hash"].to_pylist()])
    columns.append(batch["id"].to_pylist())
    return {"key": [_PART.join(row) for row in zip(*columns, strict=True)]}


def why_batch(labels: Sequence[str], batch: pa.RecordBatch) -> Mapping[str, Any]:
    """``kept_id``, and ``why`` that one stays and not this; ``kept`` for itself."""
    kept, why = [], []
    for key, best in zip(batch["key"].to_pylist(), batch["best"].to_pylist(), strict=True):
        own, other = key.split(_PART), best.split(_PART)
        kept.append(other[-1])
        differs = (name for name, a, b in zip(labels, own, other, strict=True) if a != b)
        why.append(next(differs, KEPT))
    return {"kept_id": kept, "why": why}


def _dates(newest: bool, batch: pa.RecordBatch) -> list[str]:
    return [date_key(date, newest) for date in batch["date"].to_pylist()]


def date_key(date: str | None, newest: bool = False) -> str:
    """A date as digits that sort by time; a coarser date counts as its first moment.

    Args:
        date: ``2024``, ``2024-05``, ``2024-05-17``, ``2024-05-17T08:00:00Z``; None or what does
            not begin with a year comes last.
        newest: whether the latest sorts first.
    """
    if date is None or not re.match(r"\s*\d{4}", date):
        return _LAST
    digits = re.sub(r"\D", "", date)[:_DIGITS].ljust(_DIGITS, "0")
    return f"{10**_DIGITS - 1 - int(digits):0{_DIGITS}d}" if newest else digits


def _sources(order: Sequence[str], batch: pa.RecordBatch) -> list[str]:
    places = {name: f"{place:06d}" for place, name in enumerate(order)}
    return [places.get(name, _LAST) for name in batch["source"].to_pylist()]


def _figures(name: str, batch: pa.RecordBatch) -> list[str]:
    values = pc.cast(batch[name], pa.float64(), safe=False).to_pylist()
    return [figure_key(value) for value in values]


def figure_key(value: float | None) -> str:
    """A number as hex digits of which the smallest is that of the largest number; None is last."""
    if value is None or math.isnan(value):
        return _LAST
    # The bits of floats rise with them once negative ones are turned round.
    bits = int(np.float64(value + 0.0).view(np.uint64))
    rising = bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 1 << 63)
    return f"{rising ^ 0xFFFFFFFFFFFFFFFF:016x}"
