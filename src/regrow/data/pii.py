"""Personal data in text: found where it can be told by its form, and masked by placeholders.

Every search starts at something rare (an ``@``, three dots between digits, two colons, a token's
fixed beginning), so that text without personal data costs little more than a look for these.
Names and street addresses have no form that could be told and are left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

from regrow.data.settings.pii import PiiConfig, PiiKind

PLACEHOLDERS: dict[PiiKind, str] = {
    "email": "<EMAIL>",
    "ip": "<IP>",
    "phone": "<PHONE>",
    "card": "<CARD>",
    "key": "<KEY>",
}

# Found by their literal beginning first, which costs a fraction of the expression.
_KEYS = tuple(
    (literal, re.compile(pattern))
    for literal, pattern in (
        (
            "PRIVATE KEY-----",
            r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[^-]{0,20000}-----END [A-Z ]{0,20}"
            r"PRIVATE KEY-----",
        ),
        ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
        ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        (
            "aws_secret",
            r"(?<=aws_secret_access_key)[\"']?\s{0,4}[=:]\s{0,4}[\"']?[A-Za-z0-9/+]{40}\b",
        ),
        (
            "AWS_SECRET",
            r"(?<=AWS_SECRET_ACCESS_KEY)[\"']?\s{0,4}[=:]\s{0,4}[\"']?[A-Za-z0-9/+]{40}\b",
        ),
        ("AccountKey=", r"(?<=AccountKey=)[A-Za-z0-9/+]{86}=="),
        ("AIza", r"\bAIza[0-9A-Za-z_-]{35}"),
        ("ghp_", r"\bghp_[A-Za-z0-9]{36,255}\b"),
        ("gho_", r"\bgho_[A-Za-z0-9]{36,255}\b"),
        ("ghs_", r"\bghs_[A-Za-z0-9]{36,255}\b"),
        ("ghu_", r"\bghu_[A-Za-z0-9]{36,255}\b"),
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{40,255}\b"),
        ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,64}"),
        ("hf_", r"\bhf_[A-Za-z0-9]{34,64}\b"),
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("pypi-AgE", r"\bpypi-AgE[A-Za-z0-9_-]{50,255}"),
        ("sk-", r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,200}"),
        ("_live_", r"\b[sr]k_live_[A-Za-z0-9]{20,120}\b"),
        ("xox", r"\bxox[abprs]-[A-Za-z0-9-]{10,250}"),
        ("eyJ", r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}"),
    )
)

_IN_LOCAL_PART = frozenset("_.%+-")
_LOCAL_PART = re.compile(r"[\w%+-][\w.%+-]{0,63}\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}([A-Za-z]{2,24})(?![\w-])")
# Top-level domains of three letters and more that people have mail at; those of two letters are
# countries. The rest is mostly code: ``a@b.transpose``.
_TOP_LEVEL = re.compile(
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|aero|coop|museum|mobi|asia|jobs|tel|travel|post|"
    "xyz|online|site|tech|store|app|dev|cloud|email|blog|shop|live|news|world|life|today|digital|"
    "agency|systems|solutions|services|network|media|studio|design|group|team|work|academy|center|"
    "company|consulting|foundation|global|international|institute|university|science|space|health|"
    "care|law|legal|bank|finance|energy|earth|eco|club|social|community|berlin|london|paris|wien|"
    "hamburg|koeln|bayern|tokyo|nyc"
)
# Suffixes of files that are countries too: ``logo@2x.md``.
_FILE_SUFFIXES = frozenset(("js", "ts", "py", "md", "rs", "sh", "so", "gz", "cc", "hh"))

_FOUR_ANCHOR = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d", re.ASCII)
_FOUR = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\w|-[A-Za-z])", re.ASCII)
_NO_ADDRESS_BEFORE = re.compile(r"[\w.]\Z|[A-Za-z]-\Z|(?i:version)\W{0,3}\Z")
_SIX_ANCHOR = re.compile(r":[0-9A-Fa-f]{0,4}:")
_SIX_RUN = re.compile(r"[0-9A-Fa-f:.]{2,45}", re.ASCII)
_SIX_BEFORE = re.compile(r"[0-9A-Fa-f:.]*\Z", re.ASCII)
_PUBLIC_SIX = IPv6Network("2000::/3")
_SPECIAL_SIX = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_SPECIAL_FOUR = tuple(
    map(
        IPv4Network,
        [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ],
    )
)

_CARD = re.compile(r"(?<![\w.+-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)", re.ASCII)
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}"
    r"|(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w-]|\.\d)",
    re.ASCII,
)

Span = tuple[int, int]


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses whose top-level domain is a country's or a usual one."""
    at = text.find("@")
    while at >= 0:
        before = text[max(0, at - 1) : at]
        local = None
        if before.isalnum() or before in _IN_LOCAL_PART:  # which spares most of the expressions
            local = _LOCAL_PART.search(text, max(0, at - 64), at)
        domain = _DOMAIN.match(text, at + 1, at + 256) if local else None
        if local and domain:
            top = domain[1].lower()
            if _TOP_LEVEL.fullmatch(top) or (len(top) == 2 and top not in _FILE_SUFFIXES):
                yield local.start(), domain.end()
        at = text.find("@", at + 1)


def addresses_v4(text: str) -> Iterator[Span]:
    """Public IPv4 addresses; private, reserved and documentation ranges are left, and versions."""
    for found in _FOUR_ANCHOR.finditer(text):
        start = found.start()
        while start > found.start() - 3 and start > 0 and text[start - 1] in "0123456789":
            start -= 1
        match = _FOUR.match(text, start)
        if match and not _NO_ADDRESS_BEFORE.search(text, max(0, start - 12), start):
            try:
                address = IPv4Address(match[0])
            except AddressValueError:
                continue
            if not any(address in network for network in _SPECIAL_FOUR):
                yield match.span()


def addresses_v6(text: str) -> Iterator[Span]:
    """Public IPv6 addresses: of 2000::/3, without documentation and tunnels."""
    end = 0
    for found in _SIX_ANCHOR.finditer(text):
        if found.start() < end:
            continue
        before = _SIX_BEFORE.search(text, max(end, found.start() - 45), found.start())
        run = _SIX_RUN.match(text, before.start() if before else found.start())
        if run is None:
            continue
        end = run.end()
        start, stop = run.start(), run.start() + len(run[0].rstrip(".:") or run[0])
        if stop < end and run[0][stop - start :].startswith("::"):
            stop += 2
        if text[start - 1 : start].isalnum() or text[stop : stop + 1].isalnum():
            continue
        try:
            six = IPv6Address(text[start:stop])
        except AddressValueError:
            continue
        if six in _PUBLIC_SIX and not any(six in network for network in _SPECIAL_SIX):
            yield start, stop


def phones(text: str) -> Iterator[Span]:
    """International numbers with their ``+``, and North American ones with separators."""
    for match in _PHONE.finditer(text):
        if 8 <= sum(map(str.isdigit, match[0])) <= 15:
            yield match.span()


def cards(text: str) -> Iterator[Span]:
    """Numbers of 13 to 19 digits whose check digit is right."""
    for match in _CARD.finditer(text):
        if luhn([int(one) for one in match[0] if one.isdigit()]):
            yield match.span()


def luhn(digits: list[int]) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(digits) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _matches(literal: str, pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    """A private key or a token, by its fixed beginning."""
    if literal in text:
        yield from (match.span() for match in pattern.finditer(text))


# In this order, each on what the one before left: what lies inside a key is nothing else.
_FINDERS: tuple[tuple[PiiKind, Callable[[str], Iterator[Span]]], ...] = (
    *(("key", partial(_matches, literal, pattern)) for literal, pattern in _KEYS),
    ("email", emails),
    ("ip", addresses_v4),
    ("ip", addresses_v6),
    ("card", cards),
    ("phone", phones),
)


class Masker:
    """Masks texts and counts what it masked.

    Args:
        config: which kinds.
    """

    def __init__(self, config: PiiConfig) -> None:
        in_code = {*config.mask, "key"} if config.mask else set()
        self._prose = tuple(finder for finder in _FINDERS if finder[0] in config.mask)
        self._code = tuple(finder for finder in _FINDERS if finder[0] in in_code)
        self.counts: Counter[str] = Counter()
        """Placeholders put in so far, by kind."""

    def mask(self, text: str, kind: str) -> str:
        """``text`` with a placeholder for each finding; masking twice changes nothing.

        Args:
            text: of any length.
            kind: of the document; in ``code``, keys are masked as well.
        """
        for name, find in self._code if kind == "code" else self._prose:
            pieces: list[str] = []
            at = 0
            for start, end in find(text):
                if start >= at:  # else two that overlap, as a@b.org@c.org
                    pieces += (text[at:start], PLACEHOLDERS[name])
                    at = end
                    self.counts[name] += 1
            if pieces:
                text = "".join((*pieces, text[at:]))
        return text
