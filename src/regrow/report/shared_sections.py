"""Sections that families and single runs have in common: text, samples, machine, settings."""

from __future__ import annotations

import shlex
from typing import Any

from markupsafe import Markup

from regrow.report.format import count, listing, size, words
from regrow.report.record import RunFolder, find, items, mapping, number, numbers, text
from regrow.report.section import (
    Column,
    Line,
    Section,
    Table,
    details,
    figure,
    paragraph,
    preformatted,
    source_link,
)

_SHOWN_SAMPLES = 12
_SHOWN_REASONS = 4
_SAMPLE_CHARACTERS = 4000
_CONFIG_CHARACTERS = 200_000
_CONTINUATIONS = ("text", "continuation", "completion", "output", "answer")


def facts(rows: list[tuple[str, str | Markup]], caption: str) -> Markup:
    """A table of two columns without a head: what, and how much."""
    lines = [Line([name, value]) for name, value in rows]
    table = Table((Column("", is_text=True), Column("", is_text=True)), lines, caption)
    return Markup('<div class="facts">{}</div>').format(table.html())


def documents(run: RunFolder, prefix: str = "") -> Section | None:
    """Documents and bytes per source and split, and what each step dropped.

    Args:
        run: a run of ``curate``.
        prefix: its path relative to the page, with a slash at the end.
    """
    result, file = run.result, f"{prefix}result.json"
    counted = {str(k): numbers(v) for k, v in mapping(result.get("documents")).items()}
    sizes = {str(k): numbers(v) for k, v in mapping(result.get("bytes")).items()}
    sources = list(dict.fromkeys([*counted, *sizes]))
    if run.verb != "curate run" or not any([*counted.values(), *sizes.values()]):
        return None
    splits = list(dict.fromkeys(split for row in counted.values() for split in row))
    licences = _licences(run.config)
    lines = []
    for source in sources:
        own, bytes_ = counted.get(source, {}), sizes.get(source, {})
        cells: list[str | Markup] = [
            figure(own.get(split), count, f"{file}: documents.{source}.{split}") for split in splits
        ]
        where = f"{file}: bytes.{source}, summed over the splits"
        cells.append(figure(sum(bytes_.values()) if bytes_ else None, size, where))
        lines.append(Line([source, *cells, licences.get(source, figure(None, size))]))
    columns = [
        Column("Source", is_text=True),
        *(Column(words(split), "documents") for split in splits),
        Column("Text", "bytes"),
        Column("Licence", is_text=True),
    ]
    body = Table(columns, lines, "Documents by source").html() + _steps(run, file)
    return Section(
        "text",
        "Text",
        body,
        _documents_lead(run),
        (file, f"{prefix}config.yaml"),
        frozenset({"documents", "bytes", "steps", "total_documents", "total_bytes"}),
    )


def _documents_lead(run: RunFolder) -> str:
    total, bytes_ = number(run.result.get("total_documents")), number(run.result.get("total_bytes"))
    if total is None:
        return ""
    said = f"{count(total)} documents were kept"
    return f"{said}, {size(bytes_)} of UTF-8 text." if bytes_ is not None else f"{said}."


def _licences(config: dict[str, Any]) -> dict[str, str]:
    found = {}
    for source in map(mapping, items(config.get("sources"))):
        name, licence = text(source.get("name")), text(source.get("licence"))
        if name and licence:
            found[name] = licence
        for domain in items(source.get("domains")):
            found[str(domain)] = "that of Python and of the installed packages"
    return found


def _steps(run: RunFolder, file: str) -> Markup:
    lines = []
    for place, step in enumerate(map(mapping, items(run.result.get("steps")))):
        where = f"{file}: steps[{place}]"
        counted = [
            (name, value)
            for key in ("dropped", "quarantined")
            for name, value in numbers(step.get(key)).items()
        ]
        counted.sort(key=lambda pair: -pair[1])
        reasons = [f"{name}: {count(value)}" for name, value in counted[:_SHOWN_REASONS]]
        if len(counted) > _SHOWN_REASONS:
            reasons.append(f"{count(len(counted) - _SHOWN_REASONS)} more reasons")
        lost = sum([*numbers(step.get("dropped")).values()], 0) + sum(
            [*numbers(step.get("quarantined")).values()], 0
        )
        lines.append(
            Line(
                [
                    text(step.get("step")) or f"step {place + 1}",
                    figure(step.get("in"), count, f"{where}.in"),
                    figure(step.get("out"), count, f"{where}.out"),
                    figure(lost, count, f"{where}: dropped and quarantined, summed"),
                    ", ".join(reasons) or figure(None, count),
                ]
            )
        )
    if not lines:
        return Markup("")
    columns = (
        Column("Step", is_text=True),
        Column("In", "documents"),
        Column("Out", "documents"),
        Column("Dropped", "documents"),
        Column("Why", is_text=True),
    )
    return Table(columns, lines, "Documents by step").html()


def sample_html(samples: Any) -> Markup:
    """Text that a model made; its prompt is greyed."""
    made = Markup("")
    entries = samples if isinstance(samples, list) else [samples]
    for entry in entries[:_SHOWN_SAMPLES]:
        if isinstance(entry, dict):
            prompt = text(entry.get("prompt")) or ""
            found = (text(entry.get(key)) for key in _CONTINUATIONS)
            told = next((value for value in found if value is not None), "")
            # Some continuations repeat their prompt.
            told = told.removeprefix(prompt)
        elif isinstance(entry, str):
            prompt, told = "", entry
        elif isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry):
            prompt, told = entry
        else:
            continue
        if not (prompt or told):
            continue
        head = Markup('<span class="prompt">{}</span>').format(_cut(prompt)) if prompt else ""
        made += Markup('<pre class="sample">{}{}</pre>').format(head, _cut(told))
    return made


def _cut(sample: str) -> str:
    """At most so much of a text; characters that no HTML page may hold become marks."""
    cut = sample[:_SAMPLE_CHARACTERS] + ("…" if len(sample) > _SAMPLE_CHARACTERS else "")
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut
    )


def samples(named: list[tuple[str, Any]], keys: frozenset[str] = frozenset()) -> Section | None:
    """Texts by each model, folded."""
    folded = Markup("")
    for name, value in named:
        html = sample_html(value)
        if html:
            folded += details(name, html, opened=not folded)
    if not folded:
        return None
    lead = "Prompts in grey; what follows was made by the model."
    return Section("samples", "Samples", folded, lead, ("result.json",), keys)


def place(run: RunFolder, seeds: str = "", threads: Any = None) -> Section | None:
    """Machine, versions, seed, and the command that does it again."""
    env = run.env
    rows: list[tuple[str, str | Markup]] = []
    for key, name in (
        ("cpu", "Processor"),
        ("gpu", "GPU"),
        ("system", "System"),
        ("machine", "Architecture"),
    ):
        if told := text(env.get(key)):
            rows.append((name, told))
    if number(env.get("cores")) is not None:
        rows.append(("Cores", figure(env["cores"], count, "env.json: cores", "usable")))
    if number(env.get("memory_bytes")) is not None:
        rows.append(("Memory", figure(env["memory_bytes"], size, "env.json: memory_bytes")))
    if number(threads) is not None:
        rows.append(("Threads", figure(threads, count, "result.json: evaluation.threads")))
    if omp := text(env.get("OMP_NUM_THREADS")):
        rows.append(("OMP_NUM_THREADS", omp))
    if isinstance(env.get("bf16"), bool):
        rows.append(("bfloat16 in hardware", "yes" if env["bf16"] else "no"))
    if python := text(env.get("python")):
        rows.append(("Python", python))
    packages = [f"{k} {v}" for k, v in mapping(env.get("packages")).items() if isinstance(v, str)]
    if packages:
        rows.append(("Packages", ", ".join(packages)))
    seeds = seeds or _seed(run)
    if seeds:
        rows.append(("Seed", seeds))
    body = facts(rows, "Machine and versions") if rows else Markup("")
    sources = [name for name in ("env.json", "config.yaml") if run.has(name)]
    if run.config_text:
        body += paragraph(Markup("To do it again, from the settings in {}:").format(
            source_link("config.yaml")), "label") + preformatted(command(run))  # fmt: skip
    if not body:
        return None
    return Section("place", "Where it ran", body, "", tuple(sources))


def _seed(run: RunFolder) -> str:
    seed = find(run.config, "seed")
    return str(seed) if isinstance(seed, int) and not isinstance(seed, bool) else ""


def command(run: RunFolder) -> str:
    """The command line that makes the run again, in a folder of its own."""
    folder = text(run.result.get("run")) or run.path.name
    verb, source = text(run.config.get("verb")) or run.verb, folder
    if verb == "sweep":  # no verb of the command line: the trial that was kept
        verb, best = run.verb, text(mapping(run.result.get("sweep")).get("best"))
        source = f"{folder}/trials/{best}"
    config, target = shlex.quote(f"{source}/config.yaml"), shlex.quote(f"{folder}-again")
    file = config if verb == "grow" else f"--config {config}"
    words = " ".join(map(shlex.quote, verb.split()))
    return f"regrow {words} {file} --run {target}"


def inputs(run: RunFolder) -> Section | None:
    """What was read, with its hash."""
    lines = []
    for at, record in enumerate(run.inputs):
        sha = text(record.get("sha256"))
        lines.append(
            Line(
                [
                    text(record.get("role")) or "input",
                    text(record.get("path")) or figure(None, size),
                    figure(record.get("bytes"), size, f"inputs.json: [{at}].bytes"),
                    Markup("<code>{}</code>").format(sha) if sha else figure(None, size),
                ]
            )
        )
    if not lines:
        return None
    columns = (
        Column("Role", is_text=True),
        Column("Path", is_text=True),
        Column("Size", "bytes"),
        Column("SHA-256 of its files", is_text=True),
    )
    body = Table(columns, lines, "Inputs").html()
    return Section("inputs", "Inputs", body, "", ("inputs.json",))


def settings(run: RunFolder) -> Section | None:
    """The resolved settings, folded."""
    if not run.config_text.strip():
        return None
    shown = run.config_text[:_CONFIG_CHARACTERS]
    body = details("All settings, as they were resolved", preformatted(shown))
    return Section("settings", "Settings", body, "", ("config.yaml",))


def seed_listing(parts: list[RunFolder]) -> str:
    """The seeds of a family's stages: one when all agree, else by stage."""
    found: dict[str, list[str]] = {}
    for part in parts:
        if seed := _seed(part):
            found.setdefault(seed, []).append(part.path.name)
    if len(found) == 1:
        return f"{next(iter(found))} in every stage"
    return "; ".join(f"{seed} in {listing(names)}" for seed, names in found.items())
