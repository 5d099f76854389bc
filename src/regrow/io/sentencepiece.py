"""SentencePiece BPE: trained by the ``sentencepiece`` library, converted to ``tokenizer.json``.

The conversion is exact. SentencePiece joins the two neighbours whose union is the best-ranked
piece, the leftmost of equals. Where a piece comes out, no join crossed its border, so those inside
were the ones of the piece alone: it has one last join that can ever happen, the one that ends its
own encoding, and this is its only merge in ``tokenizer.json``. (A list of every way to cut a piece
in two would need an order among the cuts, which SentencePiece does not have.)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from regrow.core.errors import ConfigError
from regrow.io.tokenizer import SPACE_MARK, SPACE_MARK_AS_BYTES, Tokenizer

UNKNOWN, PADDING, BEGIN, END = "<unk>", "<pad>", "<s>", "</s>"
# Their ids are their places here; those of begin and end are Nemotron-4's.
SPECIAL = (UNKNOWN, PADDING, BEGIN, END)
NEWLINE = "\n"
#: Ids that every vocabulary holds before it has a single character: 4, the newline, 256 bytes.
FIXED_PIECES = len(SPECIAL) + 1 + 256

# The library drops a whole sentence that holds one of its own marks (tab, U+2585, NUL), and a
# space mark in the text would count as a space: text is cut there, and at line ends.
_CUT = re.compile(f"[\n\t\0\u2585{SPACE_MARK}]+")
# It also drops sentences over 4192 bytes; so many characters are never more.
_LONGEST_SENTENCE = 1000


class Trained(NamedTuple):
    """A tokenizer in both formats.

    Args:
        model: the content of ``tokenizer.model``.
        tokenizer: the same as ``tokenizer.json`` with its settings.
        unreachable: pieces that no text is encoded to, in either format.
    """

    model: bytes
    tokenizer: Tokenizer
    unreachable: int


def require_sentencepiece() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ConfigError(
            f"kind=sentencepiece needs sentencepiece, which is not installed ({error}); "
            "pip install 'regrow[data]', or use kind=bytes"
        ) from error
    return sentencepiece


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 0.9995
) -> Trained:
    """A BPE tokenizer that keeps all whitespace, splits digits and falls back to bytes.

    The same texts give the same bytes, in any order.

    Args:
        texts: read once; all of them are held in memory.
        vocab_size: ids in all: 4 special ones, the newline, 256 bytes, characters, merges.
        character_coverage: share of the text's characters that get an id of their own, in (0, 1];
            the rarest are written as bytes.

    Raises:
        ConfigError: more ids than the text has pairs for, or fewer than it has characters.
        Exception: what ``texts`` raises.

    Source:
        Nemotron-4 15B technical report (arXiv 2402.16819), section 2; ids of the special pieces as
        in its published tokenizer.
    """
    library = require_sentencepiece()
    made = io.BytesIO()
    stopped: list[BaseException] = []
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, stopped),
            model_writer=made,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=[NEWLINE],
            **{f"{role}_id": i for i, role in enumerate(("unk", "pad", "bos", "eos"))},
            **{f"{role}_piece": SPECIAL[i] for i, role in enumerate(("unk", "pad", "bos", "eos"))},
            # The number is written into the model; pieces do not depend on it, and the part that
            # threads share is short.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if stopped:  # the library tells of it in words only
            raise stopped[0] from None
        raise _explained(str(error), vocab_size, character_coverage) from error
    model = made.getvalue()
    tokenizer, unreachable = convert(model)
    return Trained(model, tokenizer, unreachable)


def _sentences(texts: Iterable[str], stopped: list[BaseException]) -> Iterator[str]:
    """The texts in parts that the library takes whole; what ends them early goes to ``stopped``."""
    try:
        for text in texts:
            for part in _CUT.split(text):
                for start in range(0, len(part), _LONGEST_SENTENCE):
                    yield part[start : start + _LONGEST_SENTENCE]
    except Exception as error:
        stopped.append(error)
        raise


def _explained(message: str, vocab_size: int, coverage: float) -> ConfigError:
    """What the trainer's error means for the settings."""
    if found := re.search(r"too high \(\d+\).*<= (\d+)", message):
        return ConfigError(
            f"vocab_size is {vocab_size}, but the text has pairs for {found[1]} ids at most; "
            f"set vocab_size={found[1]} or less, or give it more text"
        )
    if found := re.search(r"required_chars. \d+ vs (\d+)", message):
        return ConfigError(
            f"vocab_size is {vocab_size}, but the text needs {found[1]} ids before a merge: "
            f"{FIXED_PIECES} fixed ones and its characters (character_coverage={coverage:g}); "
            f"set vocab_size={found[1]} or more, or lower character_coverage"
        )
    if "sentences_.empty()" in message:
        return ConfigError("the text to learn from is empty; name documents with text in them")
    return ConfigError(f"sentencepiece refused to train: {message}")


def convert(model: bytes) -> tuple[Tokenizer, int]:
    """``tokenizer.json`` that encodes and decodes as a model of :func:`train_sentencepiece` does.

    A space mark (U+2581) in a text is the one difference: SentencePiece gives it back as a space,
    :class:`Tokenizer` as itself.

    Args:
        model: the content of ``tokenizer.model``.

    Returns:
        The tokenizer, and the number of pieces that no text is encoded to.
    """
    processor = require_sentencepiece().SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    # Pieces stand in the order of their ranks, which only those of several characters have.
    ranks = {p: i for i, p in enumerate(pieces) if i >= FIXED_PIECES and len(p) > 1}
    merges = [merge for piece in ranks if (merge := last_merge(piece, ranks)) is not None]
    inner = tokenizers.Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            merges,
            unk_token=UNKNOWN,
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    inner.normalizer = normalizers.Replace(" ", SPACE_MARK)
    # Nothing is split beforehand: words, one by one, take 1.4 times as long.
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PADDING,
        "unk_token": UNKNOWN,
        # No bos_token: documents end with END and begin with nothing, so no model learns BEGIN.
        "clean_up_tokenization_spaces": False,
        SPACE_MARK_AS_BYTES: True,
    }
    content = inner.to_str(pretty=True).encode()
    return Tokenizer(content, settings, None), len(ranks) - len(merges)


def last_merge(piece: str, ranks: Mapping[str, int]) -> tuple[str, str] | None:
    """The two parts that become ``piece`` when ``piece`` itself is encoded.

    Args:
        piece: at least two characters.
        ranks: of all pieces of at least two characters; the lowest is joined first.

    Returns:
        The parts; None where the encoding of ``piece`` does not end in ``piece``.
    """
    parts = list(piece)
    while len(parts) > 2:
        unions = [(ranks.get(a + b), at) for at, (a, b) in enumerate(pairwise(parts))]
        _, at = min(((rank, at) for rank, at in unions if rank is not None), default=(0, -1))
        if at < 0:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
