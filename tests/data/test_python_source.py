"""Text of the Python installation, on installations made for the test."""

from __future__ import annotations

import os
import random
import sys
import sysconfig
from collections import Counter
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from regrow.data.document import Document, Rejected
from regrow.data.settings.sources import PythonSource
from regrow.data.sources.pool import File, take
from regrow.data.sources.python import docstring_page, document_kind, library_files, module_name
from regrow.data.sources.python import units as python_units

MODULE = '''"""A module of {name}."""

def public(a, b=1, *rest: int, key=None) -> str:
    """Joins a to b.

    Example:
        Indented.
    """
    def inner():
        """Not shown."""

def _private():
    """Not shown either."""

class Thing(Base):
    """A thing."""

    async def act(self):
        """Acts."""

    def silent(self):
        pass
'''


def read(source: PythonSource) -> dict[str, list[Document | Rejected]]:
    return {unit.name: list(unit.read()) for unit in python_units(source)}


def documents(items: list[Document | Rejected]) -> list[Document]:
    return [item for item in items if isinstance(item, Document)]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of 40 modules with all that such a folder may hold."""
    root = tmp_path / "lib"
    for number in range(40):
        folder = root / ("pkg" if number % 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        text = MODULE.format(name=number) + f"\nx = {'1 + ' * number}1\n"
        (folder / f"m{number}.py").write_text(text)
    (root / "empty.py").write_text("")
    (root / "silent.py").write_text("x = 1\n")
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n")
    (root / "broken_bytes.py").write_bytes(b"name = '\xe9'\n")
    (root / "broken_code.py").write_text("def (:\n")
    (root / "escape.py").write_text('"""Doc."""\nx = "\\d"\n')
    for name in ("site-packages", "__pycache__", "test", "pkg/tests", "lib-dynload"):
        (root / name).mkdir()
        (root / name / "skipped.py").write_text("skipped = True\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    return root


def test_reads_code_in_its_declared_encoding(library: Path) -> None:
    items = read(PythonSource(domains=("code",)))["code"]
    texts = {d.file: d.text for d in documents(items)}
    assert len(texts) == 40 + 4  # silent, latin, broken_code, escape
    assert "name = 'é'" in texts["stdlib/latin.py"]
    assert {(r.file, r.broken) for r in items if isinstance(r, Rejected)} == {
        ("stdlib/empty.py", False),
        ("stdlib/broken_bytes.py", True),
    }
    sample = documents(items)[0]
    assert (sample.source, sample.kind, sample.language) == ("code", "code", "python")
    assert sample.licence == "PSF-2.0"


def test_the_librarys_own_tests_only_when_asked(library: Path) -> None:
    del library
    items = read(PythonSource(domains=("code",), tests=True))["code"]
    assert sum("skipped" in d.file for d in documents(items)) == 2


def test_docstrings_make_a_readable_page(library: Path) -> None:
    items = read(PythonSource(domains=("docstrings",)))["docstrings"]
    texts = {d.file: d.text for d in documents(items)}
    assert texts["stdlib/pkg/m1.py"] == (
        "pkg.m1\n\nA module of 1.\n\n\n"
        "pkg.m1.public(a, b=1, *rest: int, key=None) -> str\n\n"
        "Joins a to b.\n\nExample:\n    Indented.\n\n\n"
        "class pkg.m1.Thing(Base)\n\nA thing.\n\n\n"
        "pkg.m1.Thing.act(self)\n\nActs.\n"
    )
    reasons = Counter((r.reason, r.broken) for r in items if isinstance(r, Rejected))
    assert reasons == {
        ("no docstrings", False): 3,
        ("not text in its declared encoding", True): 1,
        ("not Python", True): 1,
    }


def test_order_and_choice_do_not_depend_on_the_file_system(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PythonSource(
        domains=("code", "docstrings"), max_bytes={"code": 9000, "docstrings": 2000}
    )
    first = read(source)
    real = os.walk

    def shuffled(top: Path) -> Any:
        for folder, subfolders, names in real(top):
            random.Random(3).shuffle(names)
            subfolders.reverse()
            yield folder, subfolders, names

    monkeypatch.setattr(os, "walk", shuffled)
    assert read(source) == first
    for domain, cap in (("code", 9000), ("docstrings", 2000)):
        size = sum(len(d.text.encode()) for d in documents(first[domain]))
        assert 0.8 * cap < size <= cap
    del library


def test_modules_that_are_in_the_smaller_pool_are_in_the_larger(library: Path) -> None:
    """The cap cuts one fixed order, so text and held-out files stay alike as it grows."""
    del library
    small, large = (
        {
            d.file
            for d in documents(read(PythonSource(domains=("code",), max_bytes={"code": n}))["code"])
        }
        for n in (6000, 12000)
    )
    assert len(small - large) <= 1  # but for what only fitted the last gap


def test_reference_topics_are_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {"loops": "How to loop.", "empty": " \n", "none": "What None is."}
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", SimpleNamespace(topics=topics))
    items = read(PythonSource(domains=("reference",)))["reference"]
    assert {d.file for d in documents(items)} == {"topics/loops", "topics/none"}
    assert Counter(r.reason for r in items if isinstance(r, Rejected)) == {"empty": 1}


def test_works_without_the_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    assert read(PythonSource(domains=("reference",))) == {"reference": []}


def distribution(
    root: Path, name: str, headers: str, body: str, files: dict[str, bytes]
) -> metadata.Distribution:
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{headers}\n\n{body}"
    (info / "METADATA").write_text(text, encoding="utf-8")
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    record = "".join(
        f"{path},,\n" for path in (*files, "gone/README.md", "../../outside/README.md")
    )
    (info / "RECORD").write_text(record)
    return metadata.PathDistribution(info)


def test_documents_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mit = "MIT License\n\nCopyright (c) {}\n\nPermission is granted.\n"
    found = [
        distribution(
            tmp_path,
            "alpha",
            "License-Expression: MIT\nHome-page: https://example.org",
            "Alpha does ä.\n",
            {
                "alpha/README.rst": b"Read me",
                "alpha/words.txt": b"a list",
                "alpha/code.py": b"x = 1",
                "alpha-1.0.dist-info/licenses/LICENSE": mit.format("Ann").encode(),
                "alpha/NOTICE.txt": b"\xff\xfe",
            },
        ),
        distribution(
            tmp_path,
            "beta",
            "Classifier: License :: OSI Approved :: BSD License",
            "",
            {"beta-1.0.dist-info/LICENSE": mit.format("Bob").encode()},
        ),
        distribution(tmp_path, "regrow", "License: Apache-2.0", "Itself.", {}),
    ]
    monkeypatch.setattr(metadata, "distributions", lambda: iter(found))
    items = read(PythonSource(domains=("packages",)))["packages"]
    kept = {d.file: d for d in documents(items)}
    licences = {f for f in kept if "LICENSE" in f}
    assert set(kept) - licences == {
        "packages/alpha-1.0/description",
        "packages/alpha-1.0/alpha/README.rst",
    }
    assert len(licences) == 1  # the other differs in its holder only
    description = kept["packages/alpha-1.0/description"]
    assert (description.text.strip(), description.licence) == ("Alpha does ä.", "MIT")
    assert description.url == "https://example.org"
    assert Counter((r.reason, r.broken) for r in items if isinstance(r, Rejected)) == {
        ("empty", False): 1,
        ("licence already seen", False): 1,
        ("unreadable", True): 2,
        ("not UTF-8", True): 1,
    }
    found.reverse()
    assert read(PythonSource(domains=("packages",)))["packages"] == items


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("x/README.md", "prose"),
        ("x/README", "prose"),
        ("docs/guide.rst", "prose"),
        ("CHANGES.txt", "prose"),
        ("x.dist-info/licenses/sub/COPYING", "legal"),
        ("x.dist-info/licenses/APACHE", "legal"),
        ("LICENCE.txt", "legal"),
        ("x.dist-info/top_level.txt", None),
        ("x/requirements.txt", None),
        ("x/license.py", None),
    ],
)
def test_which_files_are_documents(path: str, kind: str | None) -> None:
    assert document_kind(PurePosixPath(path)) == kind


def test_module_names() -> None:
    assert module_name("json/__init__.py") == "json"
    assert module_name("email/mime/text.py") == "email.mime.text"
    assert docstring_page("m", "x = 1\n") is None


def test_this_interpreter_has_text() -> None:
    source = PythonSource(max_bytes=dict.fromkeys(PythonSource().domains, 60_000))
    for name, items in read(source).items():
        sizes = [len(d.text.encode()) for d in documents(items)]
        assert 30_000 < sum(sizes) <= 60_000, name
    assert len(library_files(Path(sysconfig.get_path("stdlib")), tests=False)) > 300


def test_take_stops_opening_files_once_full() -> None:
    opened = []

    def one(key: str) -> list[Document]:
        opened.append(key)
        return [Document("x" * 10, "s", "prose", key)]

    files = [File(f"f{i}", lambda key=f"f{i}": one(key)) for i in range(50)]
    items = list(take("s", files, 100))
    assert len(opened) == 10
    assert sum(isinstance(item, Document) for item in items) == 10
    assert len(items) == 50
