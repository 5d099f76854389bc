"""What an adapter must have, and the readings that families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from regrow.core.errors import InputError
from regrow.model.config import ModelConfig, RopeScaling

HfConfig = Mapping[str, Any]

_MAX_EOS = 256


class Adapter(Protocol):
    """Between one family of ``transformers`` and :class:`~regrow.model.config.ModelConfig`."""

    family: str
    """``model_type`` of its config."""
    architecture: str
    """Name of its stock causal-LM class."""
    aliases: Sequence[tuple[str, str]]
    """Other beginnings of tensor names on disk, each with the one that ``names`` has."""

    def read_config(self, hf: HfConfig) -> ModelConfig:
        """Our config for a ``config.json``.

        Raises:
            InputError: a setting that our decoder does not have.
            pydantic.ValidationError: an impossible shape.
        """
        ...

    def write_config(self, config: ModelConfig) -> dict[str, Any]:
        """A ``config.json`` from which the stock class builds the same model."""
        ...

    def check(self, config: ModelConfig) -> list[str]:
        """Rules of the stock class that ``config`` breaks, each with the nearest legal values."""
        ...

    def names(self, config: ModelConfig) -> list[tuple[str, str]]:
        """Each tensor's name in our state dict and in theirs, in the order of the file."""
        ...


def require(hf: HfConfig, key: str) -> Any:
    """A setting without which a config says nothing.

    Raises:
        InputError: it is missing.
    """
    if hf.get(key) is None:
        raise InputError(f"config.json lacks {key}")
    return hf[key]


def get(hf: HfConfig, key: str, default: Any) -> Any:
    """A setting, or the stock class's default where it is missing or null."""
    value = hf.get(key)
    return default if value is None else value


def flag(hf: HfConfig, key: str, default: bool) -> bool:
    """A switch.

    Raises:
        InputError: neither true nor false.
    """
    value = get(hf, key, default)
    if not isinstance(value, bool):
        raise InputError(f"{key} must be true or false, not {shorten(value)}")
    return value


def count(hf: HfConfig, key: str, default: int | None = None) -> int:
    """A whole number of at least one; required where there is no default.

    Raises:
        InputError: missing, or no such number.
    """
    value = require(hf, key) if default is None else get(hf, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 63:
        raise InputError(f"{key} must be a whole number of at least 1, not {shorten(value)}")
    return value


def words(hf: HfConfig, key: str) -> list[str] | None:
    """A list of words; None where it is missing or null.

    Raises:
        InputError: anything else.
    """
    value = hf.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InputError(f"{key} must be a list of words, not {shorten(value)}")
    return value


def shorten(value: Any) -> str:
    """A value of a stranger's config as one short printable line."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_ids(hf: HfConfig) -> dict[str, Any]:
    """Special token ids; ``eos_token_id`` may be a list.

    Raises:
        InputError: a list that no tokenizer needs.
    """
    eos = hf.get("eos_token_id")
    several = list(eos) if isinstance(eos, Sequence) and not isinstance(eos, str) else [eos]
    if len(several) > _MAX_EOS:
        raise InputError(f"eos_token_id lists {len(several)} ids; at most {_MAX_EOS} are supported")
    return {
        "bos_id": hf.get("bos_token_id"),
        "eos_id": several[0] if several else None,
        "extra_eos_ids": several[1:],
        "pad_id": _padding(hf.get("pad_token_id")),
    }


def _padding(value: Any) -> Any:
    """Some configs write -1 for no padding token."""
    return None if value == -1 else value


def write_ids(config: ModelConfig) -> dict[str, Any]:
    """Special token ids in Hugging Face's names."""
    eos: Any = config.eos_id
    if config.extra_eos_ids:
        eos = [config.eos_id, *config.extra_eos_ids]
    return {"bos_token_id": config.bos_id, "eos_token_id": eos, "pad_token_id": config.pad_id}


def read_rope(hf: HfConfig, fraction: float) -> dict[str, Any]:
    """Rotary settings, from ``rope_parameters`` or the older keys beside it.

    Priority as in transformers: inside ``rope_scaling`` / ``rope_parameters``, then the top level.

    Args:
        hf: the config.
        fraction: the family's default rotary share.

    Raises:
        InputError: a kind of scaling that our decoder does not have.
    """
    inner = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(inner, Mapping):
        raise InputError(f"rope_parameters must be an object, not {shorten(inner)}")
    settings = {**{k: hf[k] for k in ("rope_theta", "partial_rotary_factor") if k in hf}, **inner}
    kind = get(settings, "rope_type", get(settings, "type", "default"))
    scaling: dict[str, Any] | None = None
    if kind == "linear":
        scaling = {"kind": "linear", "factor": require(settings, "factor")}
    elif kind == "llama3":
        scaling = {
            "kind": "llama3",
            "factor": require(settings, "factor"),
            "low_freq_factor": require(settings, "low_freq_factor"),
            "high_freq_factor": require(settings, "high_freq_factor"),
            "original_max_positions": get(
                settings, "original_max_position_embeddings", hf.get("max_position_embeddings")
            ),
        }
    elif kind != "default":
        raise InputError(
            f"rope_type {shorten(kind)} is not supported (supported: default, linear, llama3)"
        )
    return {
        "rope_theta": get(settings, "rope_theta", 10000.0),
        "rotary_fraction": get(settings, "partial_rotary_factor", fraction),
        "rope_scaling": scaling,
    }


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """``rope_parameters`` as transformers 5 writes them."""
    settings: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    scaling: RopeScaling | None = config.rope_scaling
    if scaling is not None:
        settings |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            settings |= {
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_positions,
            }
    return settings


def write_shape(config: ModelConfig) -> dict[str, Any]:
    """The sizes, in the names that all families share."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.max_positions,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": 0.0,
        "use_cache": True,
        **write_ids(config),
    }


def check_settings(config: ModelConfig, class_name: str, expected: Mapping[str, Any]) -> list[str]:
    """Settings that ``class_name`` fixes, where ``config`` has others."""
    return [
        f"{class_name} has {name} = {value!r} only, not {getattr(config, name)!r}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
