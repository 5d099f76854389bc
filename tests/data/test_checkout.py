"""Trees of code: text files with their language, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from regrow.core.config import load_config
from regrow.core.errors import InputError
from regrow.data.config import CurateConfig
from regrow.data.document import Document, Rejected
from regrow.data.settings.sources import CheckoutSource
from regrow.data.sources.checkout import LANGUAGE_OF, units


def read(path: Path, **options: Any) -> dict[str, Document | Rejected]:
    (unit,) = units(CheckoutSource(name="repos", path=str(path), **options))
    items = list(unit.read())
    assert len({item.id for item in items}) == len(items)
    return {item.file.removeprefix("repos/"): item for item in items}


def test_a_git_checkout(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("no git here")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("print('ｶ')  # e\u0301\r\n")
    (tmp_path / "src" / "page.html").write_text("<p>markup stays</p>")
    (tmp_path / "src" / "data.jsonl").write_text('{"text": "no record here"}\n')
    (tmp_path / "Makefile").write_text("all:\n\ttrue\n")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (tmp_path / "latin.c").write_bytes("// größe\n".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "ci.yml").write_text("on: push")
    (tmp_path / "link.py").symlink_to(tmp_path / "src" / "a.py")
    os.mkfifo(tmp_path / "pipe")
    items = read(tmp_path, licence="MIT")
    kept = {name: item for name, item in items.items() if isinstance(item, Document)}
    assert {name: item.language for name, item in kept.items()} == {
        "src/a.py": "python",
        "src/page.html": "html",
        "src/data.jsonl": "",
        "Makefile": "",
    }
    assert {(item.kind, item.licence) for item in kept.values()} == {("code", "MIT")}
    assert kept["src/a.py"].text == "print('ｶ')  # e\u0301\n"  # no composing: it is code
    assert kept["src/page.html"].text == "<p>markup stays</p>"
    reasons = {n: (i.reason, i.broken) for n, i in items.items() if isinstance(i, Rejected)}
    assert reasons == {
        "logo.png": ("binary", False),
        "latin.c": ("not UTF-8", True),
        "empty.txt": ("empty", False),
        "link.py": ("link", False),
        "pipe": ("unreadable", True),
    }


def test_a_wrong_path_and_an_empty_tree(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source 'repos': .*none does not exist"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match=r"is empty, so no documents"):
        read(tmp_path)


def test_it_is_a_source_of_curate(tmp_path: Path) -> None:
    source = {"kind": "checkout", "name": "repos", "path": str(tmp_path)}
    config = load_config(CurateConfig, base={"sources": [source]})
    assert config.source_names() == ["repos"]


def test_languages_by_suffix() -> None:
    known = {".rs": "rust", ".hpp": "c++", ".sv": "verilog", ".mjs": "javascript"}
    assert {suffix: LANGUAGE_OF[suffix] for suffix in known} == known
