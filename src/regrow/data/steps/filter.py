"""Heuristic filters: plain figures of each document, and the first rule that it breaks.

All figures are computed, also those that no rule of the preset judges: presets and bounds move
without computing again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from regrow.core.errors import InputError
from regrow.data import engine, exhibits
from regrow.data.document_stats import KIND, LANGUAGE, Measure, open_tokenizer
from regrow.data.filter_rules import RULES, Bounds
from regrow.data.word_lists import WORD_LISTS, WordList

if TYPE_CHECKING:
    from regrow.data.config import CurateConfig

_BINS = 40
_SHOWN = 12


class Filter:
    """Adds a column a rule, and drops what breaks one.

    ``filter_kind`` (``prose`` or ``code``) and ``filter_language`` say by what a document was
    measured. The language is the one that the step ``language`` told, where it ran before and its
    words are known; else the one that the document declares.

    Args:
        config: ``filter`` says which rules judge.

    Raises:
        InputError: no tokenizer where one is named.
    """

    name = "filter"
    version = 1
    per_document = True

    def __init__(self, config: CurateConfig) -> None:
        settings = config.filter
        self.bounds = settings.bounds()
        self.no_list = settings.no_list
        own = {
            code: WordList(known.words, known.phrases) for code, known in settings.languages.items()
        }
        tokenizer = settings.tokenizer
        told = "language" in config.steps_before(self.name)
        self._measure = Measure({**WORD_LISTS, **own}, told, tokenizer)
        self._own = own
        self._tokenizer = None if tokenizer is None else open_tokenizer(tokenizer).sha256

    def reads(self) -> tuple[str, ...]:
        """The text, its kind, and what is known of its language."""
        told = ("language_id",) if self._measure.told else ()
        return ("text", "kind", "language", *told)

    def makes(self) -> pa.Schema:
        """Every figure, and by what it was measured."""
        return self._measure.schema()

    def key(self) -> Any:
        """The user's own words, the tokenizer, and where languages come from."""
        words = {code: [own.words, own.phrases] for code, own in sorted(self._own.items())}
        return [words, self._tokenizer, self._measure.told]

    def score(self, frame: engine.Frame, folder: Path) -> engine.Frame:
        """``id`` and every figure; null where it is one of other kinds of documents, or where the
        language is not known well enough."""
        del folder
        return engine.map_batches(frame, self._measure, self.reads(), self.makes())

    def judge(self, scores: engine.Frame, folder: Path) -> engine.Frame:
        """The first broken rule, in the order of the rules.

        Raises:
            InputError: a rule that judges cannot tell for some documents, and ``no_list`` is
                ``refuse``.
        """
        del folder
        if self.no_list == "refuse":
            self._refuse_unknown(scores)
        function = partial(judge_batch, self.bounds, self.no_list == "drop")
        return engine.judged(scores, function, self._judged_by())

    def _judged_by(self) -> list[str]:
        return [KIND, LANGUAGE, *self.bounds]

    def _refuse_unknown(self, scores: engine.Frame) -> None:
        blind: dict[str, Counter[str]] = {}
        for batch in engine.batches(scores.select(*self._judged_by())):
            for name, rows in _blind(batch, self.bounds):
                languages = batch[LANGUAGE].take(pa.array(np.flatnonzero(rows)))
                blind.setdefault(name, Counter()).update(languages.to_pylist())
        if blind:
            alike: dict[tuple[Any, ...], list[str]] = {}
            for name, languages in blind.items():
                alike.setdefault((RULES[name].needs, *languages.most_common()), []).append(name)
            problems = [_refusal(names, blind[names[0]]) for names in alike.values()]
            raise InputError("filter: some rules cannot tell", problems)

    def exhibits(self, scores: engine.Frame, folder: Path) -> list[dict[str, Any]]:
        """What each rule drops, the figures with their bounds, and what was not judged."""
        del folder
        first: Counter[str] = Counter()
        broken: Counter[str] = Counter()
        skipped: Counter[tuple[str, str]] = Counter()
        documents: Counter[str] = Counter()
        for batch in engine.batches(scores.select(*self._judged_by())):
            documents.update(batch[KIND].to_pylist())
            breaks = np.column_stack([_breaks(batch, *rule) for rule in self.bounds.items()])
            broken.update(dict(zip(self.bounds, breaks.sum(axis=0).tolist(), strict=True)))
            broken_one = breaks[breaks.any(axis=1)]
            first.update(np.array(list(self.bounds))[broken_one.argmax(axis=1)].tolist())
            for name, blind in _blind(batch, self.bounds):
                languages = batch[LANGUAGE].take(pa.array(np.flatnonzero(blind))).to_pylist()
                skipped.update((name, language) for language in languages)
        shown = [
            exhibits.table(
                "filter: what each rule drops",
                ["rule", "measures", "kept", "drops", "breaks it", "share of its documents"],
                [
                    [
                        n,
                        RULES[n].says,
                        _within(b),
                        first[n],
                        broken[n],
                        _share(n, broken, documents),
                    ]
                    for n, b in self.bounds.items()
                ],
            )
        ]
        if skipped:
            what = "dropped" if self.no_list == "drop" else "not judged by the rule"
            rows = [[name, language, n] for (name, language), n in sorted(skipped.items())]
            shown.append(
                exhibits.table(
                    f"filter: languages without a list, {what}",
                    ["rule", "language", "documents"],
                    rows,
                )
            )
        return shown + [self._histogram(scores, *rule) for rule in self.bounds.items()]

    def _histogram(self, scores: engine.Frame, name: str, bounds: Bounds) -> dict[str, Any]:
        rule = RULES[name]
        parts = [_values(batch, name) for batch in engine.batches(scores.select(name))]
        top = np.log10(rule.top)
        edges = (
            np.logspace(0, top, _BINS + 1)
            if rule.logarithmic
            else np.linspace(0, rule.top, _BINS + 1)
        )
        thresholds = [bound for bound in bounds if bound is not None]
        values = np.concatenate(parts) if parts else np.zeros(0)
        return exhibits.histogram(f"{name}: {rule.says}", values, edges, thresholds)


def _share(name: str, broken: Counter[str], documents: Counter[str]) -> float:
    return broken[name] / max(1, documents[RULES[name].kind])


def _within(bounds: Bounds) -> str:
    low, high = bounds
    if high is None:
        return f"{low:g} or more"
    return f"{high:g} or less" if low is None else f"{low:g} to {high:g}"


def _refusal(names: Sequence[str], languages: Counter[str]) -> str:
    """One line: which rules, of which documents, why, and what may be done."""
    common = languages.most_common(_SHOWN)
    shown = ", ".join(f"{language or 'unknown'} ({n})" for language, n in common)
    more = f" and {len(languages) - len(common)} more" if len(languages) > len(common) else ""
    example = next((language for language, _ in common if language), "")
    needs = RULES[names[0]].needs
    ways = []
    if not all(languages):
        ways.append("name the language of the source, or let the step language tell it")
    if needs == "list":
        why = "the words of a language are needed, which are not known for"
        if example:
            ways.append(f"give them by filter.languages.{example}={{words: [...], phrases: [...]}}")
            ways.append("keep other languages (language.keep)")
    elif needs == "blanks":
        why = "words are counted, but no blanks are written between them in"
        ways.append("keep other languages (language.keep)")
    else:
        why = "the marks of comments are needed, which are not known for"
    off = " ".join(f"filter.rules.{name}=null" for name in names)
    ways += [f"turn off what cannot tell ({off})", "set filter.no_list to drop (these documents)"]
    return (
        f"{', '.join(names)}: {why} {shown}{more}; {', '.join(ways)} or skip (the rules for them)"
    )


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """A column as float64, NaN for null."""
    found: np.ndarray = batch[name].to_numpy(zero_copy_only=False).astype(np.float64)
    return found


def _blind(batch: pa.RecordBatch, rules: Mapping[str, Bounds]) -> Iterator[tuple[str, np.ndarray]]:
    """Rules that cannot tell for some documents of their kind, with these rows."""
    kinds = np.array(batch[KIND].to_pylist())
    for name in rules:
        rule = RULES[name]
        if rule.needs:
            rows = (kinds == rule.kind) & np.isnan(_values(batch, name))
            if rows.any():
                yield name, rows


def _breaks(batch: pa.RecordBatch, name: str, bounds: Bounds) -> np.ndarray:
    values = _values(batch, name)
    broken = np.zeros(len(values), bool)
    for bound, beyond in zip(bounds, (np.less, np.greater), strict=True):
        if bound is not None:
            broken |= beyond(values, bound)  # never true of NaN
    return broken


def judge_batch(
    rules: Mapping[str, Bounds], drop_blind: bool, batch: pa.RecordBatch
) -> Mapping[str, Any]:
    """Reason and value of a batch of scores: of each document's first broken rule.

    Args:
        rules: rule to bounds, in their order.
        drop_blind: whether a document goes where a rule cannot tell.
        batch: ``filter_kind``, ``filter_language`` and a column a rule.
    """
    reasons: list[str | None] = [None] * batch.num_rows
    found: list[float | None] = [None] * batch.num_rows
    blind = dict(_blind(batch, rules)) if drop_blind else {}
    languages = batch[LANGUAGE].to_pylist()
    for name, (low, high) in rules.items():
        values = _values(batch, name)
        for row in np.flatnonzero(_breaks(batch, name, (low, high))).tolist():
            if reasons[row] is None:
                below = low is not None and values[row] < low
                reasons[row] = f"{name} below {low:g}" if below else f"{name} above {high:g}"
                found[row] = float(values[row])
        for row in np.flatnonzero(blind.get(name, ())).tolist():
            if reasons[row] is None:
                reasons[row] = f"{name} has no list for {languages[row] or 'an unknown language'}"
    return {"reason": reasons, "value": found}
