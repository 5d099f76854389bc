"""Language: what each text is in, and whether it is wanted.

What was told from the text decides, not what a record or the settings declare in ``language``:
declared languages are what this step is there to check. Both stay in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.data import engine, exhibits, languages

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

_MADE = pa.schema([("language_id", pa.string()), ("language_score", pa.float64())])
_SHOWN = 30


class Language:
    """Adds ``language_id`` and ``language_score``, null for code; drops what is not kept.

    Raises:
        ConfigError: ``language.keep`` names a code that cannot be told.
    """

    name = "language"
    version = 1
    per_document = True

    def __init__(self, config: CurateConfig) -> None:
        self.keep = config.language.keep
        self.min_score = config.language.min_score
        for code in self.keep or ():
            known = languages.labels()
            if code not in known:
                raise ConfigError(
                    f"language.keep: {code!r} is no language that can be told"
                    f"{nearest(code, known)} (known: {', '.join(sorted(known))})"
                )

    def reads(self) -> tuple[str, ...]:
        """The text, and what kind of text it is."""
        return ("text", "kind")

    def makes(self) -> pa.Schema:
        """The language that was told, and how surely."""
        return _MADE

    def key(self) -> Any:
        """Nothing is set that the scores depend on."""
        return {}

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """Identify the language of everything but code."""
        del folder
        return engine.map_batches(frame, identify_batch, self.reads(), _MADE)

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """Drop other languages, and texts of which it is unsure."""
        del folder
        function = partial(judge_batch, self.keep, self.min_score)
        return engine.judged(scores, function, _MADE.names)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """Documents by language, and how sure it was."""
        del folder
        table = scores.select(*_MADE.names).to_arrow()
        found = table.filter(pc.is_valid(table["language_id"]))
        values = found["language_score"].to_numpy()
        names, index = np.unique(
            np.asarray(found["language_id"].to_pylist(), dtype=str), return_inverse=True
        )
        counts = np.bincount(index, minlength=len(names))
        order = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))
        rows = [
            [str(names[i]), int(counts[i]), round(float(np.median(values[index == i])), 3)]
            for i in order[:_SHOWN]
        ]
        if len(order) > _SHOWN:
            rest = int(counts[order[_SHOWN:]].sum())
            rows.append([f"{len(order) - _SHOWN} others", rest, None])
        return [
            exhibits.table(
                "languages, as told from the text", ["language", "documents", "median score"], rows
            ),
            exhibits.histogram(
                "probability of the language that was told",
                values,
                np.linspace(0, 1, 21),
                [] if self.keep is None else [self.min_score],
            ),
        ]


def identify_batch(batch: pa.RecordBatch) -> Mapping[str, Any]:
    """``language_id`` and ``language_score`` of a batch with ``text`` and ``kind``."""
    prose = [i for i, kind in enumerate(batch["kind"].to_pylist()) if kind != "code"]
    texts = batch["text"]
    found = languages.identify([texts[i].as_py() for i in prose])
    names: list[str | None] = [None] * batch.num_rows
    scores: list[float | None] = [None] * batch.num_rows
    for i, (name, score) in zip(prose, found, strict=True):
        names[i], scores[i] = name, score
    return {"language_id": names, "language_score": scores}


def judge_batch(
    keep: Sequence[str] | None, min_score: float, batch: pa.RecordBatch
) -> Mapping[str, Any]:
    """Reason and value of a batch with the step's columns; code stays."""
    reasons: list[str | None] = []
    values: list[float | None] = []
    names, scores = (batch[name].to_pylist() for name in _MADE.names)
    for name, score in zip(names, scores, strict=True):
        reason = None
        if keep is not None and name is not None:
            if name not in keep:
                reason = f"language {name} is not kept"
            elif score < min_score:
                reason = f"language score below {min_score:g}"
        reasons.append(reason)
        values.append(None if reason is None else score)
    return {"reason": reasons, "value": values}
