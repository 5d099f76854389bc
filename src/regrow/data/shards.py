"""Token shards: the tokens of one source and split, read by memory map.

A shard is three files side by side. ``<source>.bin``: token ids, little endian, uint16 while the
vocabulary fits in it, else uint32; each document is followed by the end-of-text id.
``<source>.starts``: for each document the position of its first token, little-endian int64.
``<source>.json``: what they are (below), written last. The starts are a file of their own since a
corpus has millions of documents, which as JSON would have to be parsed before the first batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from regrow.core.atomic import read_json, sha256_file, write_json
from regrow.core.errors import InputError
from regrow.core.registry import nearest

FORMAT = 1
_UINT16_IDS = 1 << 16


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16 for vocabularies up to 65,536 ids, uint32 above."""
    return np.dtype("<u2" if vocab_size <= _UINT16_IDS else "<u4")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which tokenizer the ids belong to.

    Args:
        size: ids are below it.
        eos_id: stands after every document.
        tokenizer_sha256: of its ``tokenizer.json``.
    """

    size: int
    eos_id: int
    tokenizer_sha256: str


class ShardWriter:
    """Writes one shard, document after document, in constant memory.

    Use it as a context manager, inside a staged folder; the sidecar is written when it closes
    without an error.

    Args:
        folder: where the files go; it exists.
        source: names the files.
        vocabulary: of the ids.
    """

    def __init__(self, folder: Path, source: str, vocabulary: Vocabulary) -> None:
        self.folder, self.source, self.vocabulary = folder, source, vocabulary
        self.tokens = self.documents = self.text_bytes = 0
        self._dtype = token_dtype(vocabulary.size)
        self._bin = (folder / f"{source}.bin").open("wb")
        self._starts = (folder / f"{source}.starts").open("wb")
        self._bin_sha = hashlib.sha256()
        self._starts_sha = hashlib.sha256()

    def add(self, ids: Sequence[int], text_bytes: int) -> None:
        """Append one document and the end-of-text id.

        Args:
            ids: its tokens.
            text_bytes: length of its text in UTF-8.

        Raises:
            InputError: an id outside of the vocabulary.
        """
        array = np.empty(len(ids) + 1, dtype=np.int64)
        array[:-1] = ids
        array[-1] = self.vocabulary.eos_id
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.vocabulary.size:
            raise InputError(
                f"shard {self.source}, document {self.documents}: token id "
                f"{low if low < 0 else high} is outside of the vocabulary of {self.vocabulary.size}"
            )
        data = array.astype(self._dtype).tobytes()
        start = np.array([self.tokens], dtype="<i8").tobytes()
        self._bin.write(data)
        self._starts.write(start)
        self._bin_sha.update(data)
        self._starts_sha.update(start)
        self.tokens += len(array)
        self.documents += 1
        self.text_bytes += text_bytes

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bin.close()
        self._starts.close()
        if kind is None:
            write_json(self.folder / f"{self.source}.json", self._sidecar())

    def _sidecar(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "source": self.source,
            "dtype": self._dtype.name,
            "tokens": self.tokens,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "vocab_size": self.vocabulary.size,
            "eos_id": self.vocabulary.eos_id,
            "tokenizer_sha256": self.vocabulary.tokenizer_sha256,
            "sha256": self._bin_sha.hexdigest(),
            "starts_sha256": self._starts_sha.hexdigest(),
        }


def write_shard(
    folder: Path,
    source: str,
    documents: Iterable[tuple[Sequence[int], int]],
    vocabulary: Vocabulary,
) -> Shard:
    """Write a whole shard.

    Args:
        folder: where the files go; made if missing.
        source: names the files.
        documents: token ids and UTF-8 bytes of each document.
        vocabulary: of the ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, source, vocabulary) as writer:
        for ids, text_bytes in documents:
            writer.add(ids, text_bytes)
    return Shard.open(folder / f"{source}.json")


class Shard:
    """A shard on disk. Its sizes are checked when opened; its tokens are mapped on first use."""

    def __init__(self, stem: Path, sidecar: dict[str, Any]) -> None:
        self._stem = stem
        self.source: str = sidecar["source"]
        self.dtype = np.dtype(sidecar["dtype"]).newbyteorder("<")
        self.num_tokens: int = sidecar["tokens"]
        self.num_documents: int = sidecar["documents"]
        self.text_bytes: int = sidecar["text_bytes"]
        self.vocab_size: int = sidecar["vocab_size"]
        self.eos_id: int = sidecar["eos_id"]
        self.tokenizer_sha256: str = sidecar["tokenizer_sha256"]
        self.sha256: str = sidecar["sha256"]
        self._starts_sha256: str = sidecar["starts_sha256"]

    @classmethod
    def open(cls, path: Path, verify: bool = False) -> Shard:
        """A shard by its ``.json`` or ``.bin``.

        Args:
            path: either file.
            verify: also compare the hashes, which reads everything.

        Raises:
            InputError: a file is missing, has another size, or another content than recorded.
        """
        path = Path(path)
        stem = path.with_suffix("") if path.suffix in (".json", ".bin", ".starts") else path
        sidecar = stem.with_name(stem.name + ".json")
        try:
            shard = cls(stem, read_json(sidecar))
        except OSError as error:
            raise InputError(
                f"{sidecar} cannot be read ({error.strerror}); tokenize again"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{sidecar} describes no token shard ({error!r})") from error
        if shard.dtype not in (np.dtype("<u2"), np.dtype("<u4")):
            raise InputError(f"{sidecar}: dtype {shard.dtype} is neither uint16 nor uint32")
        shard._check_size(".bin", shard.num_tokens * shard.dtype.itemsize)
        shard._check_size(".starts", shard.num_documents * 8)
        if verify:
            shard.verify()
        return shard

    def _file(self, suffix: str) -> Path:
        return self._stem.with_name(self._stem.name + suffix)

    def _check_size(self, suffix: str, expected: int) -> None:
        path = self._file(suffix)
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes"
            raise InputError(f"{path} {state}, {expected} are recorded; tokenize again")

    def verify(self) -> None:
        """Compare the content with the recorded hashes.

        Raises:
            InputError: it differs.
        """
        for suffix, recorded in ((".bin", self.sha256), (".starts", self._starts_sha256)):
            if sha256_file(self._file(suffix)) != recorded:
                path = self._file(suffix)
                raise InputError(f"{path} has other content than recorded; tokenize again")

    def require(self, vocab_size: int, tokenizer_sha256: str | None = None) -> None:
        """Make sure that a model or tokenizer fits these ids.

        Raises:
            InputError: another tokenizer, or an embedding with too few rows.
        """
        if tokenizer_sha256 not in (None, self.tokenizer_sha256):
            raise InputError(
                f"shard {self._stem} was made with the tokenizer {self.tokenizer_sha256[:12]}, "
                f"not with {str(tokenizer_sha256)[:12]}; tokenize the documents with the latter"
            )
        if self.vocab_size > vocab_size:
            raise InputError(
                f"shard {self._stem} has ids up to {self.vocab_size - 1}, the vocabulary has "
                f"{vocab_size}; tokenize the documents with the model's tokenizer"
            )

    @cached_property
    def tokens(self) -> np.ndarray:
        """Token ids, (tokens,), read-only."""
        if not self.num_tokens:  # nothing can be mapped of an empty file
            return np.empty(0, dtype=self.dtype)
        return np.memmap(self._file(".bin"), dtype=self.dtype, mode="r", shape=(self.num_tokens,))

    @cached_property
    def document_starts(self) -> np.ndarray:
        """Position of each document's first token, int64, (documents,), ascending."""
        if not self.num_documents:
            return np.empty(0, dtype="<i8")
        path = self._file(".starts")
        return np.memmap(path, dtype="<i8", mode="r", shape=(self.num_documents,))


class ShardSet(dict[str, Shard]):
    """The shards of one split by source, all made with one tokenizer."""

    @classmethod
    def open(cls, folder: Path, split: str, verify: bool = False) -> ShardSet:
        """All shards of a split.

        Args:
            folder: a run folder of ``tokenize``, or its shards folder.
            split: ``train``, ``validation`` or ``test``.
            verify: compare hashes as well.

        Raises:
            InputError: no such folder, no shards, broken ones, or several tokenizers.
        """
        folder = Path(folder)
        root = folder / "shards" if (folder / "shards").is_dir() else folder
        if not root.is_dir():
            raise InputError(f"shards {folder} does not exist; name a run folder of tokenize")
        if not (root / split).is_dir():
            found = sorted(p.name for p in root.iterdir() if p.is_dir())
            raise InputError(
                f"{root} has no split {split!r}{nearest(split, found)} "
                f"(splits: {', '.join(found) or 'none'})"
            )
        sidecars = sorted((root / split).glob("*.json"))
        if not sidecars:
            raise InputError(f"{root / split} holds no shard; tokenize documents into it")
        shards = [Shard.open(path, verify) for path in sidecars]
        if len({(s.tokenizer_sha256, s.vocab_size) for s in shards}) > 1:
            raise InputError(f"{root / split} mixes shards of several tokenizers; tokenize it anew")
        return cls({shard.source: shard for shard in shards})

    def choose(self, names: Iterable[str]) -> dict[str, Shard]:
        """Some of the shards.

        Raises:
            InputError: a name without a shard, with the nearest match.
        """
        chosen = {}
        for name in names:
            if name not in self:
                known = ", ".join(self)
                hint = nearest(name, list(self))
                raise InputError(f"no shard for the source {name!r}{hint} (shards: {known})")
            chosen[name] = self[name]
        return chosen
