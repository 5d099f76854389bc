"""MinHash signatures of texts, and their bands.

The engine's kernel signs: it takes tokens with one blank between them and gives the minimum of
each of k hash functions over all runs of n tokens; a text of fewer is one run. It does not
normalise, and an empty text has the largest value everywhere. All of that is met here: texts are
normalised before, characters become tokens for shingles of characters, and an empty text has no
bands. The signature itself (4 k bytes) lives only within a batch. Legend: N texts, B bands, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from regrow.data import engine
from regrow.data.lsh import Lsh

Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(29)
_BLANK = 0x20
# Stands for a blank where blanks part characters: no stored text holds it.
_INNER_BLANK = 0x1F
_NOT_TEXT = r"[\p{P}\p{S}]+"
_EMPTY = np.uint32(0xFFFFFFFF)


def normalised(text: Any) -> Any:
    """A column of text in lower case, without punctuation and symbols, blanks as one space.

    The stored text is never changed: this is the copy that is compared.
    """
    functions = engine.expressions()
    plain = functions.regexp_replace(text, _NOT_TEXT, "")
    return functions.normalize(plain, lowercase=True, white_space=True)


def banded(frame: engine.Frame, lsh: Lsh, seed: int, keep: tuple[str, ...]) -> engine.Frame:
    """``keep`` and ``bands``: a list of B uint64, null where a text has nothing to compare.

    Args:
        frame: has ``text``, and the columns ``keep``.
        lsh: what is signed, and how the signature is cut.
        seed: of the hash functions, below 2^32.
        keep: columns that stay.
    """
    tokens = normalised(frame["text"])
    kept = [frame[name] for name in keep]
    if lsh.unit == "character":
        made = pa.schema([("tokens", pa.large_string())])
        frame = frame.select(*kept, tokens.alias("normal"))
        frame = engine.map_batches(
            frame, spread_batch, ("normal",), made, keep=keep, processes=False
        )
        tokens, kept = frame["tokens"], [frame[name] for name in keep]
    signature = engine.expressions().minhash(
        tokens, num_hashes=lsh.hashes, ngram_size=lsh.n, seed=seed, hash_function="xxhash3_64"
    )
    return engine.map_batches(
        frame.select(*kept, signature.alias("signature")),
        partial(band_batch, lsh.bands, lsh.rows),
        ("signature",),
        pa.schema([("bands", pa.large_list(pa.uint64()))]),
        keep=keep,
        processes=False,
    )


def spread_batch(batch: pa.RecordBatch) -> Mapping[str, Any]:
    """The texts of a batch as ``tokens``: each character one of them."""
    texts = batch.column(0).cast(pa.large_string())
    sizes = np.asarray(pc.fill_null(pc.binary_length(texts), 0), np.int64)
    data = np.frombuffer("".join(filter(None, texts.to_pylist())).encode(), np.uint8)
    first = (data & 0xC0) != 0x80
    before = np.zeros(len(data) + 1, np.int64)
    np.cumsum(first, out=before[1:])
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    # A blank before every character; the one before a text's first is left out of its slice.
    spread = np.full(len(data) + int(before[-1]), _BLANK, np.uint8)
    spread[np.arange(len(data)) + before[1:]] = np.where(data == _BLANK, _INNER_BLANK, data)
    spread_ends = ends + before[ends]
    content = spread.tobytes()
    bounds = zip(spread_ends[:-1].tolist(), spread_ends[1:].tolist(), strict=True)
    return {"tokens": [content[start + 1 : end].decode() for start, end in bounds]}


def band_batch(bands: int, rows: int, batch: pa.RecordBatch) -> Mapping[str, Any]:
    """The ``bands`` of a batch with one column of signatures, ``(N, B · R)`` uint32."""
    column = batch.column(0)
    signed = pc.is_valid(column).to_numpy(zero_copy_only=False)
    signatures = column.drop_null().flatten().to_numpy().reshape(-1, bands * rows)
    nothing = (signatures == _EMPTY).all(axis=1)
    signed[np.flatnonzero(signed)[nothing]] = False
    hashes = band_hashes(signatures[~nothing], bands)
    ends = np.zeros(len(signed) + 1, np.int64)
    np.cumsum(signed * bands, out=ends[1:])
    lists = pa.LargeListArray.from_arrays(
        pa.array(ends), pa.array(hashes.ravel()), mask=pa.array(~signed)
    )
    return {"bands": lists}


def band_hashes(signatures: npt.NDArray[np.uint32], bands: int) -> Hashes:
    """``(N, B)`` hashes of the bands of ``(N, B · R)`` signatures; the band's number counts."""
    cut = signatures.reshape(len(signatures), bands, signatures.shape[1] // bands)
    found = np.empty(cut.shape[:2], np.uint64)
    found[:] = np.arange(1, bands + 1, dtype=np.uint64) * _GOLDEN
    for row in range(cut.shape[2]):
        found ^= cut[:, :, row]
        found *= _MIX
        found ^= found >> _SHIFT
    return found


def shingle_hashes(text: str, lsh: Lsh) -> Hashes:
    """The set of a normalised text's shingles, each as 64 bits, rising; empty for an empty text."""
    if lsh.unit == "word":
        words = text.encode().split(b" ") if text else []
        units = np.fromiter(map(xxhash.xxh3_64_intdigest, words), np.uint64, len(words))
    else:
        units = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)
        units = (units + _GOLDEN) * _MIX
        units ^= units >> _SHIFT
    size = min(lsh.n, len(units))
    count = len(units) - size + 1 if size else 0
    found = np.full(count, size, np.uint64) * _GOLDEN
    for offset in range(size):
        found = (found ^ units[offset : offset + count]) * _MIX
        found ^= found >> _SHIFT
    return np.unique(found)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Size of the intersection over the size of the union of two sets of hashes, both rising."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - shared
    return shared / union if union else 1.0
