"""Tokenizers as ordinary Hugging Face folders, over the ``tokenizers`` library.

Text is always encoded as text: a special token's string inside a document becomes ordinary tokens,
so no document can end itself, and ``decode(encode(s)) == s`` for every valid string. The byte-level
kind is trained here, SentencePiece's in :mod:`regrow.io.sentencepiece`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from regrow.core import atomic
from regrow.core.errors import InputError

END_OF_TEXT = "<|endoftext|>"
SPACE_MARK = "\u2581"
# Setting of a tokenizer whose spaces become space marks and in which a space mark of the text
# itself is written as its three bytes; without it that character would come back as a space.
SPACE_MARK_AS_BYTES = "space_mark_as_bytes"
# What may lie beside tokenizer.json and says how to use it; nothing executable.
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
)


class Tokenizer:
    """A tokenizer with the ids that the models need.

    Args:
        content: the bytes of ``tokenizer.json``.
        settings: the content of ``tokenizer_config.json``; may be empty.
        folder: where companions lie; None when it was just made.
    """

    def __init__(self, content: bytes, settings: dict[str, Any], folder: Path | None) -> None:
        self._content = content
        self._settings = settings
        self._folder = folder
        self._inner: tokenizers.Tokenizer = tokenizers.Tokenizer.from_buffer(content)
        self._inner.encode_special_tokens = True
        self._inner.no_truncation()
        self._inner.no_padding()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.eos_id = self._special("eos_token")
        self.bos_id = self._special("bos_token")
        self._mark = self._mark_bytes() if settings.get(SPACE_MARK_AS_BYTES) is True else []

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """A tokenizer from a folder with ``tokenizer.json``, or from that file.

        Raises:
            InputError: nothing there, not a tokenizer, or one that needs code of its own.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise InputError(f"{path} holds no tokenizer.json; name a tokenizer's folder")
        settings: dict[str, Any] = {}
        beside = file.parent / "tokenizer_config.json"
        try:
            if beside.is_file():
                settings = atomic.read_json(beside)
            if not isinstance(settings, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise InputError(f"{beside} is not JSON as expected ({error})") from error
        if settings.get("auto_map"):
            raise InputError(f"{beside} asks for code of its own (auto_map), which is never run")
        try:
            return cls(file.read_bytes(), settings, file.parent)
        except InputError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{file} is not a tokenizer ({error})") from error

    def _special(self, role: str) -> int | None:
        value = self._settings.get(role)
        token = value.get("content") if isinstance(value, dict) else value
        if token is None and role == "eos_token" and not self._settings:
            token = END_OF_TEXT
        if token is None:
            return None
        return self._inner.token_to_id(token)

    def _mark_bytes(self) -> list[int]:
        """Ids of the bytes of a space mark."""
        names = [f"<0x{byte:02X}>" for byte in SPACE_MARK.encode()]
        found = (self._inner.token_to_id(name) for name in names)
        ids = [token_id for token_id in found if token_id is not None]
        if len(ids) < len(names):
            raise InputError(f"a tokenizer with {SPACE_MARK_AS_BYTES} has no token {names[0]}")
        return ids

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def end(self) -> int:
        """The id that ends every document.

        Raises:
            InputError: the tokenizer has none.
        """
        if self.eos_id is None:
            raise InputError(
                "the tokenizer names no eos_token, which ends every document; "
                "add it to its tokenizer_config.json"
            )
        return self.eos_id

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, nothing added."""
        if self._mark and SPACE_MARK in text:
            return self._around_marks(text)
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, over all cores."""
        marked = {i: text for i, text in enumerate(texts) if self._mark and SPACE_MARK in text}
        plain = ["" if i in marked else text for i, text in enumerate(texts)]
        encodings = self._inner.encode_batch_fast(plain, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        for i, text in marked.items():
            ids[i] = self._around_marks(text)
        return ids

    def _around_marks(self, text: str) -> list[int]:
        first, *others = text.split(SPACE_MARK)
        ids: list[int] = self._inner.encode(first, add_special_tokens=False).ids
        for part in others:
            ids += self._mark
            ids += self._inner.encode(part, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ``ids`` stand for; special tokens stand for none."""
        return self._inner.decode(list(ids), skip_special_tokens=True)

    def token_bytes(self) -> np.ndarray:
        """Bytes of UTF-8 text that each id stands for.

        Returns:
            int32, (vocab,); 0 for special and unused ids.

        Raises:
            InputError: a kind of tokenizer whose tokens have no fixed length.
        """
        kinds = _decoder_kinds(json.loads(self._content).get("decoder"))
        sizes = np.zeros(self.vocab_size, dtype=np.int32)
        special = {
            i for i, token in self._inner.get_added_tokens_decoder().items() if token.special
        }
        for token, index in self._inner.get_vocab(with_added_tokens=True).items():
            if index not in special:
                sizes[index] = _text_bytes(token, kinds)
        for index, added in self._inner.get_added_tokens_decoder().items():
            if not added.special:  # stored as it is written, not in the byte alphabet
                sizes[index] = len(added.content.encode())
        return sizes

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file of the tokenizer's folder."""
        yield "tokenizer.json", self._content
        if self._settings:
            text = json.dumps(self._settings, indent=2, ensure_ascii=False, sort_keys=True)
            yield "tokenizer_config.json", (text + "\n").encode()

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, for ``AutoTokenizer`` too."""
        for name, content in self.files():
            atomic.write_bytes(folder / name, content)

    def copy_files(self, folder: Path) -> None:
        """Put the tokenizer beside a model; files that it came from are copied unchanged."""
        if self._folder is None:
            self.save(folder)
            return
        atomic.write_bytes(folder / "tokenizer.json", self._content)
        for name in COMPANIONS:
            if (self._folder / name).is_file() and self._folder.resolve() != folder.resolve():
                shutil.copyfile(self._folder / name, folder / name)


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    if not decoder:
        return set()
    inner = decoder.get("decoders") or ()
    return {decoder["type"]}.union(*(_decoder_kinds(d) for d in inner))


def _text_bytes(token: str, kinds: set[str]) -> int:
    if "ByteLevel" in kinds:
        return len(token)  # one character of the byte alphabet a byte
    if "ByteFallback" in kinds or "Metaspace" in kinds:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return 1
        return len(token.replace(SPACE_MARK, " ").encode())
    raise InputError("bytes per token are known of byte-level and SentencePiece tokenizers only")


def train_byte_level(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer: every byte has a token, digits stand alone, ``END_OF_TEXT`` is 0.

    The same texts give the same bytes of ``tokenizer.json``, in any order and on any number of
    threads: merges depend only on counts of pieces, with ties broken by id.

    Args:
        texts: read once.
        vocab_size: ids in all; fewer come out when the text has too few pairs.
    """
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(inner.to_str(pretty=True).encode(), settings, None)
