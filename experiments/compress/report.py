"""Tables for README.md, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median

from experiments.compress import drawings
from experiments.compress.arms import CE, CHILD, FIVE, METHODS, TWIN, Results, latest, tried
from experiments.compress.findings import (
    FAILS,
    HOLDS,
    LABELS,
    MISSING,
    OPEN,
    PRINTED,
    Claim,
    Found,
    Gap,
    spread,
)
from experiments.compress.prepare import BATCH_AGGREGATIONS, SEQUENCE_AGGREGATIONS
from experiments.page import fill, markdown_table

from regrow.report.format import (
    amount,
    count,
    difference,
    learning_rate,
    listing,
    percent,
    scientific,
    times,
)

Row = Sequence[str]
NOTHING = "Not measured yet."
PLATEAU = 0.02


def of_last_base(results: Results) -> Results:
    """The results of the teacher and size that the last line is of."""
    return [r for r in results if r["base"] == results[-1]["base"]] if results else []


def write(results: Results, folder: Path) -> None:
    """Put each table between its marks in README.md, and draw."""
    makers: dict[str, Callable[[Found], str]] = {
        "verdict": verdict,
        "claims": claims_table,
        "arms": arms_table,
        "gaps": gaps_table,
        "compute": compute_table,
        "rates": rates_table,
        "zero": zero_table,
        "aggregations": aggregations_table,
        "search": search_table,
        "twin": twin_table,
        "cost": cost_table,
        "speed": speed_table,
    }
    found = Found(results)
    tables = {name: make(found) if found.base else NOTHING for name, make in makers.items()}
    fill(folder / "README.md", tables)
    if found.base:
        drawings.write(found, folder)


def _table(head: Row, rows: Sequence[Row]) -> str:
    if not rows:
        return NOTHING
    return markdown_table(head, rows)


def verdict(found: Found) -> str:
    """The first paragraph: what holds and what does not, with figures."""
    claims = found.claims()
    letters = dict.fromkeys(claim.letter for claim in claims)
    states = {
        letter: [claim.seen for claim in claims if claim.letter == letter] for letter in letters
    }
    kept = [x for x, seen in states.items() if all(s in (HOLDS, PRINTED) for s in seen)]
    broken = [x for x, seen in states.items() if FAILS in seen]
    vague = [x for x, seen in states.items() if OPEN in seen and FAILS not in seen]
    missing = [x for x in states if x not in (*kept, *broken, *vague)]
    parts = [
        f"{listing([f'({x})' for x in those])} {words}"
        for those, words in (
            (kept, "hold" if len(kept) > 1 else "holds"),
            (broken, "do not hold" if len(broken) > 1 else "does not hold"),
            (vague, "are not resolved" if len(vague) > 1 else "is not resolved"),
            (missing, "are not measured yet" if len(missing) > 1 else "is not measured yet"),
        )
        if those
    ]
    sentences = [f"**Of the claims below, {'; '.join(parts)}.**"]
    sentences += [_sentence(claim) for claim in claims if claim.seen != MISSING]
    sentences.append(_plateau(found))
    sentences += [_equal_compute(found), _caught(found)]
    return " ".join(sentence for sentence in sentences if sentence)


def _sentence(claim: Claim) -> str:
    """What was asked and measured; of a claim that only asks for figures, the figures."""
    if claim.seen == PRINTED:
        return f"({claim.letter}) {claim.figures}."
    return f"({claim.letter}) {claim.asked}: {claim.figures}, {claim.seen.strip('*')}."


def _equal_compute(found: Found) -> str:
    gap = found.gap("importance-ce", CHILD, longer=True)
    if gap is None:
        return ""
    told = "" if gap.resolved else ", not resolved"
    return f"At equal FLOPs, training on without the teacher stands {gap.words()} against it{told}."


def _plateau(found: Found) -> str:
    gain = found.base["last_quarter_gain"]
    state = "had reached a plateau" if gain < PLATEAU else "had not reached a plateau"
    return (
        f"The teacher saw {count(found.base['tokens'])} tokens, the last quarter of which improved "
        f"its held-out loss by {gain:.1%}: by the rule of {percent(PLATEAU)} it {state}."
    )


def _caught(found: Found) -> str:
    if not found.ladder() or not found.short():
        return ""
    short, share = found.base["short_tokens"], found.base["short_tokens"] / found.base["tokens"]
    child = f"The child of {amount(short)} tokens ({percent(share)} of the teacher's)"
    tokens = found.caught_up()
    if tokens is not None:
        return f"{child} is caught up with by a scratch twin of {amount(tokens)} tokens."
    return (
        f"{child} is not caught up with by a scratch twin within {amount(found.ladder()[-1][0])}."
    )


def claims_table(found: Found) -> str:
    """(a) to (f)."""
    rows = [(c.letter, c.asked, c.figures or "none", c.seen) for c in found.claims()]
    return _table(("", "Asked", "Measured", "Seen"), rows)


def arms_table(found: Found) -> str:
    """Equal tokens: every arm on the test split."""
    rows = []
    for method in (*FIVE, "depth-kd"):
        arms = found.arms(method)
        if arms:
            losses = found.losses(method)
            rows.append(
                (
                    LABELS[method],
                    count(arms[0]["non_embedding_parameters"]),
                    learning_rate(arms[0]["lr"]),
                    str(len(arms)),
                    spread(losses),
                    difference(mean(losses) - found.base["test"]),
                    scientific(arms[0]["flops"]),
                    f"{mean(r['seconds'] for r in arms):.0f}",
                )
            )
    if rows:
        own = found.base
        line = ("teacher", count(own["non_embedding_parameters"]), "", "1", f"{own['test']:.3f}")
        rows.append((*line, "", scientific(own["flops"]), ""))
    head = ("Arm", "Non-embedding", "Rate", "Seeds", "Test loss", "To teacher", "FLOPs", "Seconds")
    return _table(head, rows)


def gaps_table(found: Found) -> str:
    """Differences seed by seed, at equal tokens."""
    pairs = [(worse, CHILD) for worse in (*FIVE[1:], "depth-kd")]
    pairs += [("scratch-ce", "scratch-kd")]
    rows = [_gap_row(f"{LABELS[a]} minus {LABELS[b]}", found.gap(a, b)) for a, b in pairs]
    return _table(_GAP_HEAD, [row for row in rows if row])


_GAP_HEAD = ("Gap", "Mean", "Spread over seeds", "By seed", "Resolved")


def _gap_row(name: str, gap: Gap | None) -> Row:
    if gap is None:
        return ()
    seeds = ", ".join(difference(value) for value in gap.values)
    yes = "yes" if gap.resolved else "**not resolved**"
    return (name, difference(gap.mean), f"{gap.spread:.3f}", seeds, yes)


def compute_table(found: Found) -> str:
    """Equal FLOPs: arms without a teacher train on proportionally more tokens."""
    rows = []
    for method in FIVE:
        arms = found.longer(method) if method in CE else found.arms(method)
        if arms:
            rows.append(
                (
                    LABELS[method],
                    count(arms[0]["tokens"]),
                    scientific(arms[0]["flops"]),
                    str(len(arms)),
                    spread([r["test"] for r in arms]),
                )
            )
    table = _table(("Arm", "Tokens", "FLOPs with teacher", "Seeds", "Test loss"), rows)
    gaps = [
        _gap_row(f"{LABELS[a]} minus {LABELS[b]}, equal FLOPs", found.gap(a, b, longer=True))
        for a, b in (("importance-ce", "importance-kd"), ("scratch-ce", "scratch-kd"))
    ]
    kept = [row for row in gaps if row]
    return f"{table}\n\n{_table(_GAP_HEAD, kept)}" if kept else table


def rates_table(found: Found) -> str:
    """Validation loss of seed 0 at every rate that was tried."""
    lines = [
        (method, tokens, tried(found.results, method, tokens))
        for tokens in (found.base["student_tokens"], found.base["short_tokens"])
        for method in METHODS
        if tokens == found.base["student_tokens"] or method == CHILD
    ]
    rates = sorted({lr for _, _, losses in lines for lr in losses})
    rows = []
    for method, tokens, losses in lines:
        if losses:
            best = min(losses, key=lambda lr: losses[lr])
            cells = [f"{losses[lr]:.3f}" if lr in losses else "" for lr in rates]
            marked = [f"**{c}**" if lr == best else c for lr, c in zip(rates, cells, strict=True)]
            rows.append((LABELS[method], amount(tokens), *marked))
    return _table(("Arm", "Tokens", *(learning_rate(lr) for lr in rates)), rows)


def zero_table(found: Found) -> str:
    """Before any training, by seed."""
    ours, chance, depth = (found.zero(kind) for kind in ("importance", "random", "depth"))
    rows = [
        (
            str(seed),
            f"{found.base['test']:.3f}",
            f"{ours[seed][0]:.3f}",
            ", ".join(f"{value:.3f}" for value in sorted(chance.get(seed, []))),
            f"{depth[seed][0]:.3f}" if seed in depth else "",
        )
        for seed in ours
    ]
    return _table(("Seed", "Teacher", "Importance", "Random cuts", "Depth"), rows)


def aggregations_table(found: Found) -> str:
    """Nine ways to sum up importance."""
    losses = found.aggregations()
    rows = [
        (
            f"{batch} over windows",
            *(
                f"{losses[batch, sequence]:.3f}" if (batch, sequence) in losses else ""
                for sequence in SEQUENCE_AGGREGATIONS
            ),
        )
        for batch in BATCH_AGGREGATIONS
    ]
    head = ("", *(f"{sequence} over tokens" for sequence in SEQUENCE_AGGREGATIONS))
    return _table(head, rows) if losses else NOTHING


def search_table(found: Found) -> str:
    """Candidates, the best after retraining first; correlations on the way; the winner."""
    rows = found.candidates()
    if not rows:
        return NOTHING
    steps = [rung["step"] for rung in rows[0]["rungs"]]
    first = sorted(row["zero_shot"]["kld"] for row in rows)
    lines = [
        (
            row["name"],
            count(row["non_embedding_parameters"]),
            f"{row['zero_shot']['kld']:.3f}",
            *(f"{rung['kld']:.3f}" for rung in row["rungs"]),
            str(1 + first.index(row["zero_shot"]["kld"])),
            str(after),
        )
        for after, row in enumerate(rows, 1)
    ]
    head = ("Shape", "Non-embedding", "Before", *(f"{step} steps" for step in steps))
    table = _table((*head, "Rank before", "Rank after"), lines)
    return f"{table}\n\n{_search_words(found)}"


def _search_words(found: Found) -> str:
    search = found.search
    rungs = [
        f"{rung['spearman']:.2f} after {rung['step']} steps"
        for rung in search["ranks"]["by_rung"]
        if rung["spearman"] is not None
    ]
    flips = len(search["ranks"]["flips"])
    pairs = len(found.candidates()) * (len(found.candidates()) - 1) // 2
    words = (
        f"{count(search['counted'])} legal shapes lie within the budget. Spearman's rank "
        f"correlation with the order before retraining: {listing(rungs)}; {flips} of {pairs} pairs "
        f"change places. The winner, {search['winner']}, retrained like the width child, comes to "
        f"{search['winner_test']:.3f} on the test split"
    )
    child = [r["test"] for r in found.arms(CHILD) if r["seed"] == 0]
    return (
        f"{words}; the width child of the same seed has {child[0]:.3f}." if child else f"{words}."
    )


def twin_table(found: Found) -> str:
    """The child at few tokens, and the twin at more and more."""
    short = found.short()
    if not short:
        return NOTHING
    tokens = found.base["short_tokens"]
    rows = [(f"{LABELS[CHILD]}, mean over seeds", count(tokens), "1", spread(short), "")]
    rows += [
        (
            LABELS[TWIN],
            count(n),
            str(n // tokens),
            f"{loss:.3f}",
            difference(loss - mean(short)),
        )
        for n, loss in found.ladder()
    ]
    return _table(("Model", "Tokens", "Times the child's", "Test loss", "To the child"), rows)


def cost_table(found: Found) -> str:
    """The family's cost against training both of its members from scratch."""
    child, base = found.arms(CHILD), found.base
    scored = [r for r in latest(found.results).values() if r.get("importance_flops")]
    if not child or not scored:
        return NOTHING
    one, passed = child[0], scored[0]
    twin = base["student_flops_per_token"] * base["tokens"]
    swept = [
        r
        for r in latest(found.results).values()
        if r["part"] == "arm"
        and (r["method"], r["tokens"]) == (CHILD, one["tokens"])
        and r["seed"] == 0
        and r["lr"] != one["lr"]
    ]
    family = base["flops"] + passed["importance_flops"] + one["flops"]
    apart = base["flops"] + twin
    rows = [
        ("teacher, trained once", count(base["tokens"]), scientific(base["flops"])),
        (
            "importance",
            count(passed["importance_tokens"]),
            scientific(passed["importance_flops"]),
        ),
        (
            "child: its own training",
            count(one["tokens"]),
            scientific(one["flops"] - one["teacher_flops"]),
        ),
        ("child: the teacher's forward passes", "the same", scientific(one["teacher_flops"])),
        (
            "**family**",
            count(base["tokens"] + passed["importance_tokens"] + one["tokens"]),
            scientific(family),
        ),
        ("teacher, and the child's shape on as many tokens", "", scientific(apart)),
        ("**that over the family**", "", times(apart / family)),
    ]
    added = passed["importance_flops"] + one["flops"]
    rows.append(("the child alone: from scratch over cut and distilled", "", times(twin / added)))
    if swept:
        tokens, flops = (sum(r[key] for r in swept) for key in ("tokens", "flops"))
        name = "further learning rates of the child"
        rows.append((name, count(tokens), scientific(flops)))
    if found.search:
        tokens, flops = found.search["trial_tokens"], found.search["search_flops"]
        rows.append(("search over shapes", count(tokens), scientific(flops)))
    return _table(("", "Tokens", "FLOPs"), rows)


def speed_table(found: Found) -> str:
    """Speeds side by side with what the FLOPs promise."""
    line = latest(found.results).get("speed")
    if line is None:
        return NOTHING
    rows = []
    for name, speeds in line["speeds"].items():
        cells = []
        for kind in ("decode", "prefill"):
            one = speeds[kind]
            ratios = one["ratios"]
            cells += [
                count(one["tokens_per_second"]),
                f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{one['flops_ratio']:.2f}",
            ]
        rows.append((name, *cells))
    head = ["Model"]
    for kind in ("Decode", "Prefill"):
        head += [f"{kind}, tokens/s", "Times the teacher", "By FLOPs"]
    return _table(head, rows)
