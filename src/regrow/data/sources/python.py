"""Text that every machine with Python has: the interpreter's own library and installed packages.

Nothing is imported or executed but ``pydoc_data.topics`` (a table of text): docstrings are read
from the syntax tree.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import cast

from regrow.data.document import Document, Rejected, clean
from regrow.data.settings.sources import PythonDomain, PythonSource
from regrow.data.sources.pool import File, Item, Part, Unit, take

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_TEST_FOLDERS = {"test", "tests", "idle_test"}
_TOPICS = "pydoc_data/topics.py"  # text, and a source of its own
_LICENCE = "PSF-2.0"

# Documents of a distribution, by file name; other .txt files are lists for machines.
_LEGAL_NAME = re.compile(r"^(licen[cs]e|copying|notice|copyright|authors)", re.IGNORECASE)
_PROSE_NAME = re.compile(r"^(readme|changes|changelog|history|news|contributing)", re.IGNORECASE)
_COPYRIGHT_LINE = re.compile(r"^.*\b(copyright|all rights reserved)\b.*$", re.IGNORECASE | re.M)


def units(config: PythonSource) -> list[Unit]:
    """One unit a domain, in the order of the settings; each is a single part."""
    return [Unit(domain, partial(_parts, config, domain)) for domain in config.domains]


def _parts(config: PythonSource, domain: PythonDomain) -> list[Part]:
    return [Part((File(domain, partial(_domain, config, domain)),))]


def _domain(config: PythonSource, domain: PythonDomain) -> Iterator[Item]:
    """The documents of a domain; which packages repeat a licence takes them all in one pass."""
    readers: dict[PythonDomain, Callable[[], Iterable[File]]] = {
        "code": lambda: _library(_code, config.tests),
        "docstrings": lambda: _library(_docstrings, tests=False),
        "reference": _reference_files,
        "packages": _package_files,
    }
    return take(domain, readers[domain](), config.max_bytes.get(domain))


def library_files(root: Path, tests: bool) -> list[str]:
    """Python files of a library folder, as sorted relative POSIX paths.

    Args:
        root: the folder.
        tests: whether files of test folders count.
    """
    skipped = _SKIPPED_FOLDERS if tests else _SKIPPED_FOLDERS | _TEST_FOLDERS
    found: list[str] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in skipped]
        base = Path(folder).relative_to(root)
        found.extend((base / name).as_posix() for name in names if name.endswith(".py"))
    return sorted(found)


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _key(path: str) -> str:
    # Code and docstrings of one module share their key, so that they share their split: the
    # docstrings stand word for word in the code.
    return f"stdlib/{path}"


def _source_text(source: str, path: str) -> str | Rejected:
    """The decoded source of a library file, by the encoding that it declares."""
    try:
        raw = (_stdlib() / path).read_bytes()
        return importlib.util.decode_source(raw)
    except OSError as error:
        return Rejected(source, _key(path), 0, "unreadable", True, str(error))
    except (SyntaxError, UnicodeError) as error:
        return Rejected(
            source, _key(path), 0, "not text in its declared encoding", True, str(error)
        )


def _library(read: Callable[[str], Item], tests: bool) -> list[File]:
    paths = (path for path in library_files(_stdlib(), tests) if path != _TOPICS)
    return [File(_key(path), partial(_one, read, path)) for path in paths]


def _one(read: Callable[[str], Item], argument: str) -> list[Item]:
    return [read(argument)]


def _code(path: str) -> Item:
    text = _source_text("code", path)
    if isinstance(text, Rejected):
        return text
    text = clean(text, "code")
    if not text.strip():
        return Rejected("code", _key(path), 0, "empty")
    return Document(text, "code", "code", _key(path), language="python", licence=_LICENCE)


def _docstrings(path: str) -> Item:
    text = _source_text("docstrings", path)
    if isinstance(text, Rejected):
        return text
    try:
        page = docstring_page(module_name(path), text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return Rejected("docstrings", _key(path), 0, "not Python", True, str(error))
    if page is None:
        return Rejected("docstrings", _key(path), 0, "no docstrings")
    page = clean(page, "reference")
    return Document(page, "docstrings", "reference", _key(path), language="en", licence=_LICENCE)


def module_name(path: str) -> str:
    """``json/__init__.py`` -> ``json``; ``email/mime/text.py`` -> ``email.mime.text``."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def docstring_page(module: str, source: str) -> str | None:
    """A readable page of a module's public docstrings: name, signature, text; None without any.

    Args:
        module: its dotted name.
        source: its code; parsed, never executed.

    Raises:
        SyntaxError, ValueError, RecursionError: it cannot be parsed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old code
        tree = ast.parse(source)
    parts = []
    head = ast.get_docstring(tree)
    if head:
        parts.append(f"{module}\n\n{head}")
    parts.extend(_members(module, tree.body))
    return "\n\n\n".join(parts) + "\n" if parts else None


def _members(owner: str, body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        name = f"{owner}.{node.name}"
        text = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            if text:
                bases = ", ".join(ast.unparse(base) for base in node.bases)
                yield f"class {name}({bases})\n\n{text}" if bases else f"class {name}\n\n{text}"
            yield from _members(name, node.body)
        elif text:
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            yield f"{name}({ast.unparse(node.args)}){returns}\n\n{text}"


def _reference_files() -> Iterable[File]:
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions cut it out
        return []

    def read(name: str) -> Item:
        text = clean(topics[name], "reference")
        key = f"topics/{name}"
        if not text.strip():
            return Rejected("reference", key, 0, "empty")
        return Document(text, "reference", "reference", key, language="en", licence=_LICENCE)

    return [File(f"topics/{name}", partial(_one, read, name)) for name in topics]


def _package_files() -> Iterable[File]:
    """Descriptions, readmes and licences of every installed distribution but this one."""
    seen_licences: set[str] = set()
    files: dict[str, File] = {}
    for found in metadata.distributions():
        name = found.metadata["Name"]
        if not name or name.lower() == "regrow":
            continue
        files.update(_distribution_files(name, found, seen_licences))
    return files.values()


def _distribution_files(
    name: str, found: metadata.Distribution, seen_licences: set[str]
) -> dict[str, File]:
    fields = cast(Message, found.metadata)  # what it is, beyond what typing promises
    licence = _licence(fields)
    url = fields.get("Home-page") or None
    prefix = f"packages/{name}-{found.version}"

    def page(key: str, text: str, kind: str) -> Item:
        try:
            text = clean(text, kind)
        except UnicodeEncodeError as error:
            return Rejected("packages", key, 0, "not UTF-8", True, str(error))
        if not text.strip():
            return Rejected("packages", key, 0, "empty")
        if kind == "legal":
            # The same licence stands in dozens of packages under other names of its holders.
            body = " ".join(_COPYRIGHT_LINE.sub("", text).split())
            if body in seen_licences:
                return Rejected("packages", key, 0, "licence already seen")
            seen_licences.add(body)
        return Document(text, "packages", kind, key, language="en", licence=licence, url=url)

    def describe(key: str) -> list[Item]:
        text = fields.get_payload() or fields.get("Description") or ""
        return [page(key, str(text), "prose")]

    def read(key: str, path: PurePosixPath, kind: str) -> list[Item]:
        try:
            text = Path(str(found.locate_file(str(path)))).read_bytes().decode("utf-8")
        except OSError as error:
            return [Rejected("packages", key, 0, "unreadable", True, str(error))]
        except UnicodeDecodeError as error:
            return [Rejected("packages", key, 0, "not UTF-8", True, str(error))]
        return [page(key, text, kind)]

    key = f"{prefix}/description"
    files = {key: File(key, partial(describe, key))}
    for entry in found.files or ():
        path = PurePosixPath(str(entry))
        kind = document_kind(path)
        if kind and ".." not in path.parts:
            own = f"{prefix}/{path}"
            files[own] = File(own, partial(read, own, path, kind))
    return files


def document_kind(path: PurePosixPath) -> str | None:
    """``legal`` or ``prose`` for a file that people read, by its name; None for any other."""
    suffix = path.suffix.lower()
    if suffix in (".py", ".pyi", ".pyc", ".so", ".json", ".yaml", ".toml", ".html", ".h", ".c"):
        return None
    if _LEGAL_NAME.match(path.name) or path.parent.name == "licenses":
        return "legal"
    if suffix in (".md", ".rst") or _PROSE_NAME.match(path.stem):
        return "prose" if suffix in (".md", ".rst", ".txt", "") else None
    return None


def _licence(fields: Message) -> str:
    """The licence as the distribution declares it, in one line."""
    declared = fields.get("License-Expression") or fields.get("License") or ""
    declared = declared.strip().splitlines()[0].strip() if declared.strip() else ""
    if declared and len(declared) <= 80:
        return declared
    for line in fields.get_all("Classifier") or ():
        if line.startswith("License ::"):
            return str(line).rsplit("::", 1)[1].strip()
    return "unknown"
