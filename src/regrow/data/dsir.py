"""Importance resampling over hashed n-grams: which texts look most like a target.

Source: DSIR (Xie et al., arXiv 2302.03169), as Data, Data Everywhere (arXiv 2407.06380) uses it.
The counts of buckets equal those of the paper's own library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from regrow.data.characters import look_up
from regrow.data.words import Hashes, Ints, batches, hash_pieces, in_a_row, joined_hashes

BUCKETS = 10_000
#: Added to every probability before its logarithm.
FLOOR = 1e-8
GROUPS = 10  # of documents of similar length

Buckets = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float64]

_SPACE, _WORD, _OTHER = range(3)
_DIGEST_WORDS = 8
# 2^32 to the power of each word of a digest, modulo the buckets: their sum stays below 2^49.
_POWERS = np.array([pow(2, 32 * (_DIGEST_WORDS - 1 - i), BUCKETS) for i in range(_DIGEST_WORDS)])
_SLOT_BITS = 22


@dataclass(frozen=True, slots=True)
class Features:
    """Buckets of the n-grams of several texts.

    Args:
        buckets: ``(n-grams,)`` one for each token and for each two in a row, text after text.
        first: ``(texts + 1,)`` where those of each text begin.
    """

    buckets: Buckets
    first: Ints

    @property
    def tokens(self) -> Ints:
        """``(texts,)`` tokens of each text."""
        return (np.diff(self.first) + 1) // 2

    def counts(self) -> Ints:
        """``(BUCKETS,)`` n-grams of all texts in each bucket."""
        return np.bincount(self.buckets, minlength=BUCKETS).astype(np.int64)


class Hasher:
    r"""Unigrams and bigrams of texts in buckets; an n-gram is hashed once while it is remembered.

    Tokens are what ``\w+|[^\w\s]+`` finds in the lower-case text. A bucket is SHA-256 of the n-gram
    (a bigram: its tokens with a space between them), as a number, modulo 10,000. N-grams are told
    apart by 64 bits of a faster hash, for which there is a fixed number of slots.
    """

    def __init__(self) -> None:
        self._known = np.zeros(1 << _SLOT_BITS, np.uint64)  # 0 is none
        self._buckets = np.zeros(1 << _SLOT_BITS, np.uint16)

    def features(self, texts: Sequence[str]) -> Features:
        """Buckets of each n-gram of each text.

        Raises:
            UnicodeEncodeError: a lone surrogate.
        """
        parts = [self._of(texts[chosen]) for chosen in batches(texts)]
        sizes = [size for _, part in parts for size in part]
        first = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(np.array(sizes, np.int64), out=first[1:])
        found = [buckets for buckets, _ in parts] or [np.empty(0, np.uint16)]
        return Features(np.concatenate(found), first)

    def _of(self, texts: Sequence[str]) -> tuple[Buckets, Ints]:
        """Buckets of a few texts, and how many each has."""
        data, begins, _ = in_a_row(text.lower() for text in texts)
        starts, ends = _edges(_classes(data))
        tokens = np.diff(np.append(np.searchsorted(starts, begins), len(starts)))
        last = np.cumsum(tokens)[tokens > 0] - 1
        singles = hash_pieces(data, starts, ends)
        hashes = np.empty(2 * len(starts), np.uint64)
        hashes[0::2] = singles
        hashes[1:-1:2] = joined_hashes(singles[:-1], singles[1:])
        inside = np.ones(len(hashes), bool)
        inside[2 * last + 1] = False
        number = np.flatnonzero(inside)
        found = self._lookup(hashes[number], number, data, starts, ends)
        return found, np.maximum(2 * tokens - 1, 0)

    def _lookup(
        self, hashes: Hashes, number: Ints, data: bytes, starts: Ints, ends: Ints
    ) -> Buckets:
        """The bucket of each n-gram: even numbers are tokens, odd ones a token and the next."""
        slots = (hashes >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        found = self._buckets[slots]
        missed = np.flatnonzero(self._known[slots] != hashes)
        if len(missed):
            # What lost its slot to another may be in its second one.
            again = _second(hashes[missed])
            here = self._known[again] == hashes[missed]
            found[missed[here]] = self._buckets[again[here]]
            missed = missed[~here]
        if len(missed):
            missed = missed[np.argsort(hashes[missed])]
            ordered = hashes[missed]
            first = np.append(True, ordered[1:] != ordered[:-1])
            at = missed[first]
            buckets = _hashed(number[at], data, starts, ends)
            found[missed] = buckets[np.cumsum(first) - 1]
            self._remember(ordered[first], slots[at], buckets)
        return found

    def _remember(self, hashes: Hashes, slots: Ints, buckets: Buckets) -> None:
        """New ones in their first slots where these are free, else in their second."""
        taken = self._known[slots] != 0
        slots = np.where(taken, _second(hashes), slots)
        self._known[slots] = hashes
        self._buckets[slots] = buckets


def _second(hashes: Hashes) -> Ints:
    """The other slot of each, from other bits of its hash."""
    return (hashes & np.uint64((1 << _SLOT_BITS) - 1)).astype(np.int64)


def _hashed(number: Ints, data: bytes, starts: Ints, ends: Ints) -> Buckets:
    """The buckets of the n-grams of these numbers, each of them hashed."""
    sha256 = hashlib.sha256
    head, pair = number >> 1, number & 1
    tail = head + pair
    # Many pairs stand in the text with one space between them, as they are hashed.
    blank = np.frombuffer(data, np.uint8)[ends[head]] == ord(" ")
    whole = (pair == 0) | (blank & (starts[tail] == ends[head] + 1))
    found = np.empty(len(number), np.uint16)
    bounds = (place[whole].tolist() for place in (starts[head], ends[tail]))
    found[whole] = _reduced([sha256(data[a:b]).digest() for a, b in zip(*bounds, strict=True)])
    apart = ~whole
    bounds = (
        place[apart].tolist() for place in (starts[head], ends[head], starts[tail], ends[tail])
    )
    pairs = [data[a:b] + b" " + data[c:d] for a, b, c, d in zip(*bounds, strict=True)]
    found[apart] = _reduced([sha256(ngram).digest() for ngram in pairs])
    return found


def _reduced(digests: Sequence[bytes]) -> Buckets:
    """Each digest, as a number, modulo ``BUCKETS``."""
    words = np.frombuffer(b"".join(digests), ">u4").reshape(-1, _DIGEST_WORDS).astype(np.int64)
    found: Buckets = (words @ _POWERS % BUCKETS).astype(np.uint16)
    return found


def _class_of(character: str) -> int:
    r"""As ``re`` sees it: ``\s``, ``\w``, or neither."""
    if character.isspace():
        return _SPACE
    return _WORD if character.isalnum() or character == "_" else _OTHER


def _classes(data: bytes) -> npt.NDArray[np.uint8]:
    """The class of each byte of UTF-8; all bytes of a character have its class."""
    classes, first, sizes = look_up(data, _class_of)
    for offset in (1, 2, 3):
        longer = first[sizes > offset]
        classes[longer + offset] = classes[longer]
    return classes


def _edges(classes: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    changes = classes[1:] != classes[:-1]
    starts = np.flatnonzero(changes & (classes[1:] != _SPACE)) + 1
    ends = np.flatnonzero(changes & (classes[:-1] != _SPACE)) + 1
    return starts, ends


def log_ratio(target: Ints, raw: Ints, laplace: float = 0.0) -> Floats:
    """``log q_j - log p_j`` of each bucket, each probability with 1e-8 added.

    Args:
        target: ``(BUCKETS,)`` n-grams of the target.
        raw: ``(BUCKETS,)`` n-grams of what is chosen from.
        laplace: added to each of the target's counts.
    """
    return _logs(target.astype(np.float64) + laplace) - _logs(raw.astype(np.float64))


def _logs(counts: Floats) -> Floats:
    found: Floats = np.log(counts / max(1.0, counts.sum()) + FLOOR)
    return found


def log_weight(buckets: Buckets, ratio: Floats) -> float:
    """Log importance weight of one text: the sum over its n-grams, so it grows with the text."""
    return float(ratio[buckets].sum())


def own_log_weight(buckets: Buckets, target: Ints, raw: Ints, laplace: float = 0.0) -> float:
    """The same of one text of the target itself, asked of the target without it.

    A text that helped to say what is wanted would otherwise find itself wanted whatever it says.

    Args:
        buckets: of the text.
        target: ``(BUCKETS,)`` of the whole target.
        raw: ``(BUCKETS,)`` of what is chosen from, this text included.
        laplace: as in :func:`log_ratio`.
    """
    kinds, times = np.unique(buckets, return_counts=True)
    total = target.sum() - times.sum() + laplace * BUCKETS
    q = (target[kinds] - times + laplace) / max(1.0, total)
    p = raw[kinds] / max(1, raw.sum())
    return float(times @ (np.log(q + FLOOR) - np.log(p + FLOOR)))


def uniforms(ids: Sequence[str], seed: int) -> Floats:
    """A number above 0 and below 1 for each id, which depends on it and on the seed alone."""
    bits = np.array([xxhash.xxh3_64_intdigest(one.encode(), seed) for one in ids], np.uint64)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gumbel(uniform: Floats) -> Floats:
    """Gumbel(0, 1) variates: the largest ``k`` of log weights with them are ``k`` draws without
    replacement, each in proportion to the weights that are left."""
    found: Floats = -np.log(-np.log(uniform))
    return found


def length_edges(tokens: Ints) -> Floats:
    """``(9,)`` where one tenth of the texts ends, by length, and the next begins."""
    found: Floats = np.quantile(tokens, np.arange(1, GROUPS) / GROUPS)
    return found


def cuts(keys: Floats, ties: Floats, groups: Ints, share: float, count: int) -> Floats:
    """What the last of the chosen of each group has: the highest keys are chosen.

    Args:
        keys: ``(texts,)`` what they are ranked by.
        ties: ``(texts,)`` which comes first of equal keys: the higher.
        groups: ``(texts,)`` numbers below ``count``.
        share: of each group; the shares are rounded so that they add up to that of all.
        count: groups.

    Returns:
        ``(count, 2)`` key and tie; infinite where none is chosen.
    """
    order = np.lexsort((-ties, -keys, groups))
    ends = np.cumsum(np.bincount(groups, minlength=count))
    quota = np.diff(np.floor(share * ends + 0.5).astype(np.int64), prepend=0)
    found = np.full((count, 2), np.inf)
    some = quota > 0
    last = order[np.concatenate([[0], ends[:-1]])[some] + quota[some] - 1]
    found[some] = np.column_stack([keys[last], ties[last]])
    return found
