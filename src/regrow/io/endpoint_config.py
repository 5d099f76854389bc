"""Settings of an OpenAI-compatible endpoint; importing them costs no HTTP library."""

from __future__ import annotations

import os
import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from regrow.core.config import Config
from regrow.core.errors import ConfigError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class EndpointConfig(Config):
    """Where a model answers, and how much may be asked of it."""

    base_url: str
    """Address before ``/chat/completions``, such as ``http://127.0.0.1:8000/v1``."""
    model: str = Field(min_length=1)
    """Name of the model there."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the key; null: none is sent."""
    reply_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How JSON is asked for, as far as the server knows it; replies are checked in any case."""
    max_tokens: int = Field(default=256, gt=0)
    """Tokens of one reply at most."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Seconds that one request may take in all."""
    retries: int = Field(default=5, ge=0, le=20)
    """Further attempts after a failure that may pass."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests begun in a minute at most; null: as fast as it answers."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """Requests under way at once."""
    max_requests: int | None = Field(default=None, gt=0)
    """Requests of one attempt of the run at most, repeated ones included; null: no bound."""
    max_total_tokens: int | None = Field(default=None, gt=0)
    """Tokens, read and written, of one attempt of the run at most; null: no bound."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            known = bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            parts, known = urlsplit(""), False
        if parts.scheme not in ("http", "https") or not known:
            raise ValueError(f"{value!r} is no address; write http://HOST:PORT/v1 or https://...")
        if parts.username or parts.password:
            raise ValueError("holds a user or a password; set api_key_env instead")
        if parts.query or parts.fragment:
            raise ValueError(f"{value!r} has a query or a fragment; give the plain address")
        return value.rstrip("/")

    def key(self) -> str | None:
        """The key from the environment; None where none is needed.

        Raises:
            ConfigError: ``api_key_env`` names a variable that is not set, or holds what no header
                can.
        """
        if self.api_key_env is None:
            return None
        value = os.environ.get(self.api_key_env, "").strip()
        if not value:
            raise ConfigError(
                f"api_key_env: the environment variable {self.api_key_env} is not set; export it, "
                "or leave api_key_env out where the endpoint needs no key"
            )
        if not re.fullmatch(r"[\x21-\x7e]+", value):
            raise ConfigError(
                f"api_key_env: what {self.api_key_env} holds is no key (odd characters)"
            )
        return value

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in _LOOPBACK
