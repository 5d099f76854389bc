"""The page of a curation: what each stage let through, what it looked like, what went and why."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from regrow.report.exhibits import exhibits_html
from regrow.report.flow import Passage, flow_chart
from regrow.report.format import MISSING, count, percent, size
from regrow.report.plots import Bar, bar_chart
from regrow.report.record import RunFolder, items, mapping, number, numbers, text
from regrow.report.section import Column, Line, Section, Table, details, drawings, figure

_CARD = ("card.json",)
_NAMES = {"gather": "Gathering"}
_LICENCES = 12


def flow(run: RunFolder) -> Section | None:
    """Documents in and out of every stage, and what stays of each source."""
    passages = []
    for stage in map(mapping, items(run.card.get("stages"))):
        name, before, after = (
            text(stage.get("step")),
            number(stage.get("in")),
            number(stage.get("out")),
        )
        if name and before is not None and after is not None and before >= after >= 0:
            passages.append(Passage(_title(name), before, after))
    if not passages:
        return None
    body = drawings(lambda width: flow_chart(passages, title="Documents by stage", width=width))
    body += _by_source(run.card)
    first, last = passages[0].before, passages[-1].after
    lead = ""
    if first:
        lead = f"Of {count(first)} records {count(last)} became documents, {percent(last / first)}."
        lead += " What is lost is hollow."
    return Section("flow", "What each stage lets through", body, lead, _CARD)


def _title(step: str) -> str:
    return _NAMES.get(step, step[:1].upper() + step[1:])


def _by_source(card: dict[str, Any]) -> Markup:
    yields = [mapping(one) for one in items(card.get("yields"))]
    names = list(dict.fromkeys(n for one in yields for n in numbers(one.get("sources"))))
    if len(names) < 2:
        return Markup("")
    lines = []
    for at, one in enumerate(yields):
        counts = numbers(one.get("sources"))
        cells = [
            figure(counts.get(name), count, f"card.json: yields[{at}].sources.{name}")
            for name in names
        ]
        lines.append(Line([_title(text(one.get("step")) or "stage"), *cells]))
    columns = [Column("After", is_text=True), *(Column(name, "documents") for name in names)]
    return Table(columns, lines, "Documents after each stage, by source").html()


def steps(run: RunFolder) -> Section | None:
    """What every step shows of itself."""
    body = Markup("")
    for step, shown in mapping(run.card.get("exhibits")).items():
        html = exhibits_html(items(shown), f"exhibits.{step}")
        if html:
            body += Markup("<h3>{}</h3>{}").format(_title(str(step)), html)
    return Section("steps", "Steps", body, "", _CARD) if body else None


def lengths(run: RunFolder) -> Section | None:
    """How long the documents are, whose they are, and what was masked in them."""
    body = _licences(run.card) + _masked(run.card)
    drawn = exhibits_html([run.card.get("lengths")], "lengths")
    if not (body or drawn):
        return None
    return Section("documents", "The documents", drawn + body, "", _CARD)


def _licences(card: dict[str, Any]) -> Markup:
    lines = []
    for at, row in enumerate(map(mapping, items(card.get("licences")))):
        source = text(row.get("source"))
        if source:
            where = f"card.json: licences[{at}]"
            lines.append(
                Line(
                    [
                        source,
                        text(row.get("licence")) or MISSING,
                        figure(row.get("documents"), count, f"{where}.documents"),
                        figure(row.get("bytes"), size, f"{where}.bytes"),
                    ]
                )
            )
    if not lines:
        return Markup("")
    columns = (
        Column("Source", is_text=True),
        Column("Licence", is_text=True),
        Column("Documents"),
        Column("Text", "bytes"),
    )
    heading = Markup("<h3>Licences</h3>")
    table = Table(columns, lines[:_LICENCES], "Licences").html()
    if len(lines) > _LICENCES:
        rest = Table(columns, lines[_LICENCES:], "More licences").html()
        table += details(f"{len(lines) - _LICENCES} more", rest)
    return heading + table


def _masked(card: dict[str, Any]) -> Markup:
    """Personal data that was masked when text was gathered."""
    gathered = mapping(next(iter(items(card.get("stages"))), None))
    if not isinstance(gathered.get("masked"), dict):
        return Markup("")
    found = numbers(gathered["masked"])
    lines = [
        Line([kind, figure(value, count, f"card.json: stages[0].masked.{kind}")])
        for kind, value in found.items()
    ]
    heading = Markup("<h3>Personal data that was masked</h3>")
    if not lines:
        return heading + Markup("<p>None was found, or none was looked for.</p>")
    columns = (Column("Kind", is_text=True), Column("Places"))
    return heading + Table(columns, lines, "Personal data that was masked").html()


def dropped(run: RunFolder) -> Section | None:
    """A few of the documents that each rule took away."""
    counts = {
        str(stage.get("step")): numbers(stage.get("dropped"))
        for stage in map(mapping, items(run.card.get("stages")))
    }
    body = Markup("")
    for step, rules in mapping(run.card.get("dropped")).items():
        folded = Markup("")
        by_rule = counts.get(str(step), {})
        for rule in sorted(mapping(rules), key=lambda rule: -by_rule.get(rule, 0)):
            html = Markup("").join(map(_example, map(mapping, items(rules[rule]))))
            if html:
                summary = Markup('{} <span class="sub-inline">{}</span>').format(
                    rule, _documents(by_rule.get(rule))
                )
                folded += details(summary, html)
        if folded:
            body += Markup("<h3>{}</h3>{}").format(_title(str(step)), folded)
    if not body:
        return None
    lead = "Up to ten documents of each rule, the first by id; the value is what broke the rule."
    return Section("dropped", "What was dropped", body, lead, _CARD)


def _documents(value: float | None) -> str:
    if value is None:
        return ""
    return f"{count(value)} document{'' if value == 1 else 's'}"


def _example(example: dict[str, Any]) -> Markup:
    value, name = number(example.get("value")), text(example.get("id")) or ""
    told = "" if value is None else f"{value:.4g} · "
    label = Markup('<p class="label">{}{}: {} <code title="{}">{}</code></p>').format(
        told, text(example.get("source")) or "", text(example.get("file")) or "", name, name[:12]
    )
    shown = "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in text(example.get("text")) or ""
    )
    return label + Markup('<pre class="sample">{}</pre>').format(shown)


def blend(run: RunFolder) -> Section | None:
    """The blend of a run of ``tokenize`` that samples, as planned and as sampled."""
    sample = mapping(run.result.get("sample"))
    buckets = {str(name): mapping(row) for name, row in mapping(sample.get("buckets")).items()}
    shares = {
        how: {name: number(row.get(f"{how}_tokens")) or 0 for name, row in buckets.items()}
        for how in ("planned", "sampled")
    }
    totals = {how: sum(values.values()) for how, values in shares.items()}
    body = exhibits_html(items(run.result.get("exhibits")), "exhibits", "result.json")
    bars = [
        Bar(f"{name}, {how}", values[name] / totals[how], percent(values[name] / totals[how]), at)
        for name in buckets
        for at, (how, values) in enumerate(shares.items())
        if totals[how] > 0
    ]
    if bars:
        title = "Share of the tokens, as planned and as sampled"
        body = drawings(lambda width: bar_chart(bars, title=title, width=width)) + body
    if not body:
        return None
    method = text(sample.get("method"))
    lead = f"Tokens of the training split by bucket; method {method}." if method else ""
    keys = frozenset({"sample", "exhibits"})
    return Section("blend", "The blend", body, lead, ("result.json",), keys)
