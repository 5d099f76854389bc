"""Every command and every Python example of the docs, in their order, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from regrow.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "curate",
    "data",
    "selection",
    "train",
    "compress",
    "evaluate",
    "generate",
    "hybrid",
    "models",
    "runs",
)
# The docs show budgets that make sense; here only that the commands work.
SMALLER = {
    "pretrain": ["train.tokens=4096", "train.batch_tokens=2048"],
    "continue": ["train.tokens=4096", "train.batch_tokens=2048"],
    "distill": ["train.tokens=4096", "train.batch_tokens=2048"],
    "importance": ["samples=4"],
    "family": [
        "train.tokens=4096",
        "train.batch_tokens=2048",
        "samples=4",
        "trial.tokens=8192",
        "trial.score_tokens=512",
    ],
    "generate": ["max_new_tokens=4"],
    "evaluate": ["max_tokens=2048", "decode.repeats=1", "samples.new_tokens=4"],
}
WHOLE = ("import torch", "import regrow\nfrom regrow.io")


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.mark.timeout(300)
def test_every_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for page in PAGES:
        for words in commands(page):
            assert words[0] == "regrow", words
            with pytest.raises(SystemExit) as end:
                main([*words[1:], *SMALLER.get(words[1], ())])
            assert end.value.code in (0, None), (page, words)
            ran += 1
        for block in blocks(page, "python"):
            if block.startswith(WHOLE):  # whole examples; the others are fragments
                exec(compile(block, f"{page}.md", "exec"), {})
    assert ran >= 15
    assert (tmp_path / "runs" / "evaluation" / "report.html").exists()
    assert (tmp_path / "my-model" / "config.json").exists()


def test_links_lead_somewhere() -> None:
    for path in [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
