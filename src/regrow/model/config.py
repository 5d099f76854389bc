"""The shape of a decoder: every number that its parameters and its arithmetic depend on.

No torch here: plans and checks read this before anything is allocated.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from regrow.core.config import Config

Norm = Literal["rmsnorm", "layernorm1p"]
Activation = Literal["swiglu", "relu2", "gelu"]

#: What a family takes where a config says nothing. The Nemotron row is table 1 of Nemotron-4 15B
#: (arXiv 2402.16819) with the rotary share, norm and init of its public configuration.
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "nemotron": {
        "norm": "layernorm1p",
        "activation": "relu2",
        "rotary_fraction": 0.5,
        "init_std": 0.0134,
    },
}

#: Symbols of a pattern that this version can build. ``M`` (Mamba-2) joins with its block.
SYMBOLS = "*-"
_KNOWN_ELSEWHERE = {
    "M": "Mamba-2",
    "E": "mixture of experts",
    "G": "gated delta net",
    "D": "another attention",
    "+": "another attention",
    "/": "multi-token prediction",
}


class RopeScaling(Config):
    """How rotary frequencies are stretched for contexts longer than the pretraining one."""

    kind: Literal["linear", "llama3"]
    """``linear`` divides every frequency; ``llama3`` only the slow ones, with a smooth step."""
    factor: float = Field(ge=1.0)
    """How many times longer the context becomes."""
    low_freq_factor: float = Field(default=1.0, gt=0.0)
    """``llama3``: wavelengths above original_max_positions / this are divided fully."""
    high_freq_factor: float = Field(default=4.0, gt=0.0)
    """``llama3``: wavelengths below original_max_positions / this stay as they are."""
    original_max_positions: int = Field(default=8192, gt=0)
    """``llama3``: context length of the pretraining, in tokens."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor ({self.high_freq_factor}) must exceed "
                f"low_freq_factor ({self.low_freq_factor})"
            )
        return self


class ModelConfig(Config):
    """Everything that fixes a decoder's parameters and its function.

    Zero and the empty string mean *derive it*: after validation every field holds its final value.
    Settings that are not given take the values of the layout (see :data:`LAYOUTS`).
    """

    layers: int = Field(gt=0, le=4096)
    """Attention+MLP pairs, as Hugging Face counts; for any other pattern, its length."""
    hidden_size: int = Field(gt=0, le=1 << 18)
    """Width of the residual stream."""
    heads: int = Field(gt=0, le=1 << 14)
    """Query heads of each attention block."""
    vocab_size: int = Field(gt=0, le=1 << 24)
    """Rows of the embedding and of the output head."""
    intermediate_size: int = Field(default=0, ge=0, le=1 << 20)
    """Width inside each MLP; derived: 4 x hidden, or 8/3 x hidden rounded up to 64 if gated."""
    kv_heads: int = Field(default=0, ge=0, le=1 << 14)
    """Key/value heads; each serves heads / kv_heads query heads. Derived: as many as heads."""
    head_dim: int = Field(default=0, ge=0, le=1 << 14)
    """Channels of one head; never tied to hidden_size / heads when given."""
    tie_embeddings: bool = False
    """Whether the output head is the embedding matrix."""
    pattern: str = Field(default="", max_length=8192)
    """One symbol a block: ``*`` attention, ``-`` MLP. Derived: ``*-`` for each layer."""
    layout: str = "llama"
    """Hugging Face family that the model is read from and exported as."""
    norm: Norm = "rmsnorm"
    """``rmsnorm``, or ``layernorm1p``: LayerNorm with a bias and a gain stored minus one."""
    norm_eps: float = Field(default=1e-5, gt=0.0, lt=1.0)
    """Added to the variance inside each norm."""
    activation: Activation = "swiglu"
    """``swiglu`` (gated), ``relu2`` (squared ReLU) or ``gelu`` (exact)."""
    qkv_bias: bool = False
    """Bias in the query, key and value projections."""
    output_bias: bool = False
    """Bias in attention's output projection."""
    mlp_bias: bool = False
    """Bias in the MLP's projections."""
    qk_norm: bool = False
    """RMSNorm over each query and key head before the rotation (Qwen3)."""
    rope_theta: float = Field(default=10000.0, gt=0.0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """Stretching of the rotary frequencies; none by default."""
    rotary_fraction: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of each head's channels that is rotated; 0 for no position encoding."""
    max_positions: int = Field(default=4096, gt=0)
    """Longest sequence the model is meant for, in tokens."""
    init_std: float = Field(default=0.02, gt=0.0)
    """Standard deviation of freshly initialised linears and embeddings."""
    bos_id: int | None = Field(default=None, ge=0)
    """Token id that opens a text, where the tokenizer has one."""
    eos_id: int | None = Field(default=None, ge=0)
    """Token id that ends a document."""
    extra_eos_ids: tuple[int, ...] = ()
    """Further ids that end an answer (chat models list several)."""
    pad_id: int | None = Field(default=None, ge=0)
    """Token id of padding, where the tokenizer has one."""

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is unknown (known: {', '.join(LAYOUTS)})")
        given = self.model_fields_set
        derived = {k: v for k, v in LAYOUTS[self.layout].items() if k not in given}
        self.__dict__.update(derived)  # the model is frozen for its users, not for its validator
        gated = self.activation == "swiglu"
        if not self.head_dim:
            if self.hidden_size % self.heads:
                legal = _multiples(self.hidden_size, self.heads)
                raise ValueError(
                    f"head_dim is not given and hidden_size {self.hidden_size} is no multiple of "
                    f"heads {self.heads}; give head_dim, or use {legal}"
                )
            self.__dict__["head_dim"] = self.hidden_size // self.heads
        if not self.kv_heads:
            self.__dict__["kv_heads"] = self.heads
        if not self.intermediate_size:
            width = -(-8 * self.hidden_size // (3 * 64)) * 64 if gated else 4 * self.hidden_size
            self.__dict__["intermediate_size"] = width
        if not self.pattern:
            self.__dict__["pattern"] = "*-" * self.layers
        self._check_pattern()
        self._check_heads()
        return self

    def _check_pattern(self) -> None:
        for index, symbol in enumerate(self.pattern):
            if symbol not in SYMBOLS:
                what = _KNOWN_ELSEWHERE.get(symbol)
                known = f" ({what}, which this version cannot build)" if what else ""
                raise ValueError(
                    f"pattern symbol {symbol!r} at index {index}{known}; use {' '.join(SYMBOLS)}"
                )
        expected = len(self.pattern) // 2 if self.is_transformer else len(self.pattern)
        if self.layers != expected:
            counted = "pairs" if self.is_transformer else "blocks"
            raise ValueError(
                f"layers is {self.layers}, but pattern {self.pattern!r} has {expected} {counted}"
            )

    def _check_heads(self) -> None:
        if self.heads % self.kv_heads:
            legal = [k for k in range(1, self.heads + 1) if self.heads % k == 0]
            near = sorted(legal, key=lambda k: abs(k - self.kv_heads))[:2]
            raise ValueError(
                f"kv_heads {self.kv_heads} does not divide heads {self.heads}; "
                f"nearest legal kv_heads: {', '.join(map(str, sorted(near)))}"
            )
        if self.rotary_dim % 2:
            below, above = ((self.rotary_dim + s) / self.head_dim for s in (-1, 1))
            raise ValueError(
                f"rotary_fraction {self.rotary_fraction} of head_dim {self.head_dim} rotates "
                f"{self.rotary_dim} channels, which is odd; nearest legal: "
                f"{below:g} or {above:g}"
            )
        for name in ("bos_id", "eos_id", "pad_id"):
            value = getattr(self, name)
            if value is not None and value >= self.vocab_size:
                raise ValueError(f"{name} {value} lies outside vocab_size {self.vocab_size}")

    @property
    def is_transformer(self) -> bool:
        """Whether the stack is attention+MLP pairs and nothing else."""
        return self.pattern == "*-" * (len(self.pattern) // 2)

    @property
    def rotary_dim(self) -> int:
        """Channels of each head that are rotated."""
        return int(self.head_dim * self.rotary_fraction)

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation by a second projection."""
        return self.activation == "swiglu"

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated as a whole.

        Changing ``layers`` of an attention+MLP stack changes its pattern with it. Every other
        derived value stays: a narrower ``hidden_size`` keeps ``head_dim`` and
        ``intermediate_size``.

        Raises:
            pydantic.ValidationError: the result is impossible.
            ConfigError: a change names no setting.
        """
        if "layers" in changes and "pattern" not in changes and self.is_transformer:
            changes["pattern"] = ""
        return super().replace(**changes)


def _multiples(value: int, factor: int) -> str:
    """The nearest hidden sizes that ``factor`` divides, in words."""
    below, above = value // factor * factor, (value // factor + 1) * factor
    return f"hidden_size {below} or {above}" if below else f"hidden_size {above}"
