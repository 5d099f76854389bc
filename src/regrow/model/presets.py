"""Published shapes by name; each is checked against its published parameter count in the tests.

Sources: Nemotron-4 15B (arXiv 2402.16819, table 1); Minitron (arXiv 2407.14679); LLM pruning and
distillation in practice (arXiv 2408.11796); the transformer, the Mamba-2 and the hybrid of the
Mamba-2-Hybrid study (arXiv 2406.07887), 8B each; Nemotron-H 8B (arXiv 2504.03624) and the 4B that
was cut from it (arXiv 2504.11409); Mistral NeMo 12B (its public config).
"""

from __future__ import annotations

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest
from regrow.model.config import MambaConfig, ModelConfig, RopeScaling

_LLAMA31_ROPE = RopeScaling(
    kind="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_positions=8192,
)

#: 128 heads of 64 channels; chunks of 128 as in the published training.
_MAMBA_8B = MambaConfig(state=128, head_dim=64, heads=128, groups=8, conv=4, chunk=128)

PRESETS: dict[str, ModelConfig] = {
    "nemotron4-15b": ModelConfig(
        layout="nemotron", layers=32, hidden_size=6144, intermediate_size=24576,
        heads=48, kv_heads=8, head_dim=128, vocab_size=256000, bos_id=2, eos_id=3,
    ),
    "minitron-8b": ModelConfig(
        layout="nemotron", layers=32, hidden_size=4096, intermediate_size=16384,
        heads=48, kv_heads=8, head_dim=128, vocab_size=256000, bos_id=2, eos_id=3,
    ),
    "minitron-4b": ModelConfig(
        layout="nemotron", layers=32, hidden_size=3072, intermediate_size=9216,
        heads=24, kv_heads=8, head_dim=128, vocab_size=256000, bos_id=2, eos_id=3,
    ),
    "llama31-8b": ModelConfig(
        layers=32, hidden_size=4096, intermediate_size=14336,
        heads=32, kv_heads=8, head_dim=128, vocab_size=128256,
        rope_theta=500000.0, rope_scaling=_LLAMA31_ROPE, max_positions=131072,
        bos_id=128000, eos_id=128001,
    ),
    "llama31-minitron-4b-width": ModelConfig(
        layers=32, hidden_size=3072, intermediate_size=9216,
        heads=32, kv_heads=8, head_dim=128, vocab_size=128256,
        rope_theta=500000.0, rope_scaling=_LLAMA31_ROPE, max_positions=131072,
        bos_id=128000, eos_id=128001,
    ),
    "llama31-minitron-4b-depth": ModelConfig(
        layers=16, hidden_size=4096, intermediate_size=14336,
        heads=32, kv_heads=8, head_dim=128, vocab_size=128256,
        rope_theta=500000.0, rope_scaling=_LLAMA31_ROPE, max_positions=131072,
        bos_id=128000, eos_id=128001,
    ),
    "mn-minitron-8b": ModelConfig(
        layers=40, hidden_size=4096, intermediate_size=11520,
        heads=32, kv_heads=8, head_dim=128, vocab_size=131072,
        rope_theta=1000000.0, max_positions=8192, bos_id=1, eos_id=2,
    ),
    "mistral-nemo-12b": ModelConfig(
        layout="mistral", layers=40, hidden_size=5120, intermediate_size=14336,
        heads=32, kv_heads=8, head_dim=128, vocab_size=131072,
        rope_theta=1000000.0, max_positions=131072, bos_id=1, eos_id=2,
    ),
    "transformer-8b": ModelConfig(
        layout="nemotron", layers=32, hidden_size=4096, intermediate_size=16384,
        heads=32, kv_heads=32, head_dim=128, vocab_size=256000, init_std=0.02,
    ),
    "mamba2-8b": ModelConfig(
        layers=56, hidden_size=4096, vocab_size=256000, pattern="M" * 56, mamba=_MAMBA_8B,
    ),
    "mamba2-hybrid-8b": ModelConfig(
        layers=56, hidden_size=4096, intermediate_size=16384, activation="gelu",
        heads=32, kv_heads=8, head_dim=128, vocab_size=256000,
        pattern="M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-", mamba=_MAMBA_8B,
    ),
    "nemotronh-8b": ModelConfig(
        layers=52, hidden_size=4096, intermediate_size=21504,
        heads=32, kv_heads=8, head_dim=128, vocab_size=131072, max_positions=8192,
        pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", mamba=_MAMBA_8B,
    ),
    "nemotronh-4b": ModelConfig(
        layers=52, hidden_size=3072, intermediate_size=12288,
        heads=32, kv_heads=8, head_dim=128, vocab_size=131072, max_positions=8192,
        pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        mamba=_MAMBA_8B.replace(heads=112),
    ),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """The published shape called ``name``.

    Raises:
        ConfigError: no such preset; lists the known ones with the nearest match.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"unknown preset {name!r}{nearest(name, list(PRESETS))} (known: {', '.join(PRESETS)})"
        )
    return PRESETS[name]
