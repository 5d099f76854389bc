"""What personal data is masked."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from regrow.core.config import Config

PiiKind = Literal["email", "ip", "phone", "card", "key"]


class PiiConfig(Config):
    """Fixed placeholders in place of personal data, put in when text is gathered."""

    mask: tuple[PiiKind, ...] = ("email", "ip")
    """``email``, ``ip`` (public IPv4 and IPv6), ``phone``, ``card`` (credit cards, by check digit),
    ``key`` (private keys and tokens; in code always, unless nothing is masked)."""

    @field_validator("mask")
    @classmethod
    def _once(cls, mask: tuple[PiiKind, ...]) -> tuple[PiiKind, ...]:
        twice = sorted({kind for kind in mask if mask.count(kind) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice; name each kind once")
        return mask
