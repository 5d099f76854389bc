"""Write ``report.html`` of a finished run; which page it is follows from what the result holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from markupsafe import Markup

from regrow.core import atomic
from regrow.report import (
    control_section,
    curate_section,
    family_sections,
    other_sections,
    run_sections,
    search_section,
    shared_sections,
    task_section,
    tokenizer_section,
    twins,
)
from regrow.report.family import Family
from regrow.report.format import amount, scientific, seconds, unit_of, words
from regrow.report.headline import Tile, headline, tiles
from regrow.report.record import RunFolder, mapping, number, text
from regrow.report.section import (
    Column,
    Line,
    Section,
    Table,
    figure,
    render,
    source_link,
)

PAGE = "report.html"

# A family's page, in this order.
FAMILY_SECTIONS: tuple[Callable[[Family], Section | None], ...] = (
    family_sections.tree,
    family_sections.models,
    twins.twins,
    search_section.front_of_family,
    search_section.searches,
    family_sections.loss_curves,
    family_sections.cost,
)
# Any other run's page; what none of these shows comes after them, then inputs, machine, settings.
RUN_SECTIONS: tuple[Callable[[RunFolder], Section | None], ...] = (
    run_sections.figures,
    run_sections.training,
    run_sections.domains,
    control_section.control,
    run_sections.data,
    shared_sections.documents,
    curate_section.flow,
    curate_section.steps,
    curate_section.lengths,
    curate_section.dropped,
    curate_section.blend,
    run_sections.models,
    search_section.search,
    task_section.tasks,
    tokenizer_section.fertility,
    run_sections.trials,
)
# The figures that stand at the top of a run's page, as many as there is room for.
_TOP = (
    "loss",
    "non_embedding_parameters",
    "parameters",
    "total_documents",
    "total_bytes",
    "vocab_size",
    "total_tokens",
    "tokens",
    "flops",
    "seconds",
)
_TILES = 4


def write_page(folder: Path) -> Path:
    """Make the page of a finished run from the run's files; the same files give the same bytes.

    Args:
        folder: a run folder with ``result.json``. Missing or odd entries leave out their section.

    Returns:
        The page's path, ``folder/report.html``.

    Raises:
        OSError: the page cannot be written.
    """
    run = RunFolder.read(folder)
    page = family_page(run) if run.is_family else run_page(run)
    # Text of models may hold lone surrogates, which UTF-8 does not.
    clean = str(page).encode("utf-8", "replace").decode("utf-8")
    atomic.write_text(folder / PAGE, clean)
    return folder / PAGE


def _page(run: RunFolder, eyebrow: str, sentences: list[str], top: list[Tile],
          sections: Iterable[Section | None]) -> Markup:  # fmt: skip
    version = text(mapping(run.env.get("packages")).get("regrow"))
    made_by = f"regrow {version}" if version else "regrow"
    footer = Markup("Made by {} from the files of this folder; every figure tells its file.")
    return render(
        "page.html",
        title=run.title,
        eyebrow=eyebrow,
        headline=sentences,
        tiles=top,
        sections=[section for section in sections if section is not None],
        footer=footer.format(made_by),
    )


def family_page(run: RunFolder) -> Markup:
    """The page of a family."""
    family = Family(run)
    parts = run.parts()
    named = [(member.name, member.data.get("samples")) for member in family.members]
    threads = mapping(run.result.get("evaluation")).get("threads")
    curated = next((part for part in parts if part.verb == "curate run"), None)
    sections = [
        *(make(family) for make in FAMILY_SECTIONS),
        shared_sections.samples(named),
        stages(run, parts),
        shared_sections.documents(curated, f"{curated.path.name}/") if curated else None,
        shared_sections.place(run, shared_sections.seed_listing(parts), threads),
        shared_sections.settings(run),
    ]
    return _page(run, "Family of models", headline(family), tiles(family), sections)


def stages(run: RunFolder, parts: list[RunFolder]) -> Section | None:
    """The runs that made the family, each with its own page."""
    order = list(mapping(run.result.get("stage_seconds")))
    parts = sorted(parts, key=lambda p: order.index(p.path.name) if p.path.name in order else 1e9)
    lines = []
    for part in parts:
        name = part.path.name
        page = f"{name}/{PAGE}" if part.has(PAGE) else f"{name}/result.json"
        file = f"{name}/result.json"
        result = part.result
        verb = f"{part.verb}, best of {_trials(part)}" if part.is_sweep else part.verb
        lines.append(
            Line(
                [
                    source_link(page, name),
                    verb,
                    figure(result.get("tokens"), amount, f"{file}: tokens"),
                    figure(result.get("flops"), scientific, f"{file}: flops"),
                    figure(result.get("seconds"), seconds, f"{file}: seconds"),
                ]
            )
        )
    if not lines:
        return None
    columns = (
        Column("Stage", is_text=True),
        Column("Verb", is_text=True),
        Column("Tokens"),
        Column("FLOPs"),
        Column("Time"),
    )
    lead = "Each stage has a page of its own."
    if any(part.is_sweep for part in parts):
        lead += " Of several trials: tokens and FLOPs of the one that was kept, time of all."
    body = Table(columns, lines, "Stages").html()
    return Section("stages", "Stages", body, lead, ("result.json",))


def _trials(part: RunFolder) -> str:
    tried = mapping(part.result.get("sweep")).get("trials")
    return f"{len(tried)} trials" if isinstance(tried, list) else "several trials"


def run_page(run: RunFolder) -> Markup:
    """The page of any other run."""
    sections = [section for make in RUN_SECTIONS if (section := make(run)) is not None]
    evaluated = mapping(run.result.get("models"))
    named = [(str(k), mapping(v).get("samples")) for k, v in evaluated.items()]
    if "samples" in run.result:
        named.append((run.title, run.result["samples"]))
    sampled = shared_sections.samples(named, frozenset({"samples"}))
    if sampled is not None:
        sections.append(sampled)
    shown = frozenset[str]().union(*(section.keys for section in sections))
    profiles = other_sections.profiles(run, shown)
    shown |= profiles.keys if profiles else frozenset()
    rows = [
        *sections,
        profiles,
        other_sections.rest(run, shown),
        shared_sections.inputs(run),
        shared_sections.place(run),
        shared_sections.settings(run),
    ]
    what = f"{run.verb}, best of {_trials(run)}" if run.is_sweep else run.verb
    return _page(run, f"{what} · {_state(run)}", [], _top(run), rows)


def _state(run: RunFolder) -> str:
    """What became of the run; one that has its result is done, whatever its status says."""
    if run.result:
        return "done"
    return text(run.status.get("state")) or "not finished"


def _top(run: RunFolder) -> list[Tile]:
    made: list[Tile] = []
    for key in _TOP:
        if number(run.result.get(key)) is not None and len(made) < _TILES:
            unit = unit_of(key)
            value = figure(run.result[key], unit.write, f"result.json: {key}")
            name = words(key)
            note = "" if name.lower().endswith(unit.name.lower()) else unit.name
            made.append(Tile(name, value, note))
    return made
