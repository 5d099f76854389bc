"""What the results say about each claim; nothing here is worded as more than it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Any, NamedTuple

from experiments.compress.arms import CHILD, FIVE, TWIN, Results, chosen, latest, of, twin_loss
from experiments.compress.prepare import Size

from regrow.report.format import difference, percent
from regrow.search.ranks import spearman

LABELS = {
    "importance-kd": "importance + KD",
    "importance-ce": "importance + CE",
    "random-kd": "random cut + KD",
    "scratch-kd": "fresh weights + KD",
    "scratch-ce": "fresh weights + CE",
    "depth-kd": "depth + KD",
}
PRUNED = ("importance-kd", "importance-ce", "random-kd")
SCRATCH = ("scratch-kd", "scratch-ce")
#: Nats by which prune+KD has to beat the two arms next to it.
GAP = 0.02
CLOSED = 0.85
CANDIDATES = 12

HOLDS, FAILS, OPEN, MISSING = "holds", "**does not hold**", "**not resolved**", "not measured yet"
PRINTED = "printed"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean (smallest to largest)."""
    if not values:
        return "not run"
    low, high, centre = (f"{v:.{digits}f}" for v in (min(values), max(values), mean(values)))
    return centre if low == high else f"{centre} ({low} to {high})"


class Gap(NamedTuple):
    """How far one arm lies above another, seed by seed.

    Args:
        values: differences of test loss, in nats a token.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest difference."""
        return max(self.values) - min(self.values)

    @property
    def resolved(self) -> bool:
        """Whether there are several seeds, and they differ by less than the gap."""
        return len(self.values) > 1 and abs(self.mean) > self.spread

    def words(self) -> str:
        """The gap and its spread."""
        if len(self.values) < 2:
            return f"{difference(self.mean)} (one seed)"
        return f"{difference(self.mean)} (spread {self.spread:.3f})"


class Claim(NamedTuple):
    """One of the claims (a) to (f): what was asked, what was measured, what that means."""

    letter: str
    asked: str
    figures: str
    seen: str


@dataclass(frozen=True)
class Found:
    """The results of one teacher and one size.

    Args:
        results: its lines.
    """

    results: Results

    @cached_property
    def base(self) -> dict[str, Any]:
        """The line of the teacher; empty before it is there."""
        return latest(self.results).get("base", {})

    @cached_property
    def size(self) -> Size:
        """What the results were made with."""
        return Size(**self.base["size"])

    def arms(self, method: str, tokens: int | None = None) -> Results:
        """Lines of a method at its best rate, by seed; by default of the equal tokens."""
        if not self.base:
            return []
        return chosen(self.results, method, tokens or self.base["student_tokens"], self.size)

    def longer(self, method: str) -> Results:
        """Lines of an arm without teacher at the FLOPs of those with one."""
        if not self.arms(method):
            return []
        rate = self.arms(method)[0]["lr"]
        rows = of(self.results, method, self.base["equal_compute_tokens"])
        return sorted((r for r in rows if r["lr"] == rate), key=lambda r: r["seed"])

    def losses(self, method: str) -> list[float]:
        """Test losses of a method, by seed."""
        return [r["test"] for r in self.arms(method)]

    def gap(self, worse: str, better: str, longer: bool = False) -> Gap | None:
        """``worse`` minus ``better``; with ``longer``, arms without teacher at equal FLOPs."""
        rows = self.longer(worse) if longer else self.arms(worse)
        ours = {r["seed"]: r["test"] for r in self.arms(better)}
        values = tuple(r["test"] - ours[r["seed"]] for r in rows if r["seed"] in ours)
        return Gap(values) if values else None

    def zero(self, kind: str) -> dict[int, list[float]]:
        """Seed to the losses of the untrained students of a kind."""
        made: dict[int, list[float]] = {}
        for line in latest(self.results).values():
            if line["part"] == "zero" and line["kind"] == kind:
                made.setdefault(line["seed"], []).append(line["loss"])
        return dict(sorted(made.items()))

    def aggregations(self) -> dict[tuple[str, str], float]:
        """(over windows, over tokens) to the loss of the untrained student."""
        return {
            (line["batch"], line["sequence"]): line["loss"]
            for line in latest(self.results).values()
            if line["part"] == "zero" and line["kind"] == "aggregation"
        }

    @property
    def search(self) -> dict[str, Any]:
        """The line of the search; empty before it is there."""
        return latest(self.results).get("search", {})

    def candidates(self) -> Results:
        """What the search tried and trained to the end, the best after retraining first."""
        found = self.search.get("candidates", [])
        return sorted((c for c in found if c["rungs"]), key=lambda c: c["rungs"][-1]["kld"])

    def rank_correlation(self) -> float | None:
        """Spearman's rho between the candidates' divergences before and after retraining."""
        rows = self.candidates()
        after = [row["rungs"][-1]["kld"] for row in rows]
        return spearman([row["zero_shot"]["kld"] for row in rows], after)

    def closed(self) -> list[float]:
        """Share of the gap from fresh weights + CE to the teacher that the child closes."""
        ours = {r["seed"]: r["test"] for r in self.arms(CHILD)}
        return [
            (r["test"] - ours[r["seed"]]) / (r["test"] - self.base["test"])
            for r in self.arms(TWIN)
            if r["seed"] in ours
        ]

    def ladder(self) -> list[tuple[int, float]]:
        """Tokens of the twin, each a multiple of the short child's, and its test loss."""
        if not self.base:
            return []
        made, tokens = [], self.base["short_tokens"]
        while tokens <= self.base["tokens"] and of(self.results, TWIN, tokens):
            made.append((tokens, twin_loss(self.results, tokens)))
            tokens *= 2
        return made

    def short(self) -> list[float]:
        """Test losses of the short child, by seed."""
        return [r["test"] for r in self.arms(CHILD, self.base["short_tokens"])] if self.base else []

    def caught_up(self) -> int | None:
        """Tokens at which the twin first is no worse than the short child; None: at none tried."""
        if not self.short():
            return None
        child = mean(self.short())
        return next((tokens for tokens, loss in self.ladder() if loss <= child), None)

    def claims(self) -> list[Claim]:
        """(a) to (f), each with what is measured so far."""
        return [self._a(), self._b(), *self._c(), self._d(), self._e(), self._f()]

    def _a(self) -> Claim:
        asked = "cut by importance, before training: below all random cuts, for every seed"
        ours, chance = self.zero("importance"), self.zero("random")
        seeds = [seed for seed in ours if len(chance.get(seed, ())) >= self.size.randoms]
        if not seeds:
            return Claim("a", asked, "", MISSING)
        below = [seed for seed in seeds if ours[seed][0] < min(chance[seed])]
        lowest = min(min(chance[seed]) for seed in seeds)
        figures = (
            f"{spread([ours[seed][0] for seed in seeds])} against at least {lowest:.3f}; "
            f"below all {self.size.randoms} in {len(below)} of {len(seeds)} seeds"
        )
        return Claim("a", asked, figures, HOLDS if len(below) == len(seeds) else FAILS)

    def _b(self) -> Claim:
        asked = "the nine aggregations are printed, no order is asserted"
        found = self.aggregations()
        if len(found) < 9:
            return Claim("b", asked, "", MISSING)
        low, high = min(found.values()), max(found.values())
        return Claim("b", asked, f"{low:.3f} to {high:.3f}, in the table below", PRINTED)

    def _c(self) -> list[Claim]:
        made = [
            self._margin(f"{LABELS[CHILD]} below {LABELS[worse]} by {GAP} nats", worse)
            for worse in ("importance-ce", "random-kd")
        ]
        asked = "every arm that was cut below every one of fresh weights, in the mean"
        if not all(self.losses(method) for method in FIVE):
            return [*made, Claim("c", asked, "", MISSING)]
        worst = max(mean(self.losses(method)) for method in PRUNED)
        best = min(mean(self.losses(method)) for method in SCRATCH)
        figures = f"highest that was cut {worst:.3f}, lowest of fresh weights {best:.3f}"
        return [*made, Claim("c", asked, figures, HOLDS if worst < best else FAILS)]

    def _margin(self, asked: str, worse: str) -> Claim:
        gap = self.gap(worse, CHILD)
        if gap is None:
            return Claim("c", asked, "", MISSING)
        seen = (HOLDS if gap.mean >= GAP else FAILS) if gap.resolved else OPEN
        return Claim("c", asked, gap.words(), seen)

    def _d(self) -> Claim:
        way = f"of the way from {LABELS[TWIN]} to the teacher"
        asked = f"{LABELS[CHILD]} closes at least {percent(CLOSED)} {way}"
        shares = self.closed()
        if not shares:
            return Claim("d", asked, "", MISSING)
        ends = f" ({percent(min(shares))} to {percent(max(shares))})" if len(shares) > 1 else ""
        seen = HOLDS if mean(shares) >= CLOSED else FAILS
        return Claim("d", asked, f"{percent(mean(shares))}{ends}", seen)

    def _e(self) -> Claim:
        asked = "width no worse than depth at equal parameters, in two of three seeds"
        gap = self.gap("depth-kd", CHILD)
        if gap is None:
            return Claim("e", asked, "", MISSING)
        won = sum(value >= 0 for value in gap.values)
        seeds = f"in {won} of {len(gap.values)} seeds; depth minus width {gap.words()}"
        figures = seeds if gap.resolved else f"{seeds}, not resolved"
        return Claim("e", asked, figures, HOLDS if 3 * won >= 2 * len(gap.values) else FAILS)

    def _f(self) -> Claim:
        asked = f"{CANDIDATES} shapes: rank correlation before and after retraining is printed"
        count, rho = len(self.candidates()), self.rank_correlation()
        if rho is None or count < self.size.candidates:
            return Claim("f", asked, "", MISSING)
        return Claim("f", asked, f"Spearman {rho:.2f} over {count} shapes", PRINTED)
