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
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    # Mamba-2-Hybrid (arXiv 2406.07887): no position encoding; the Mamba-2 blocks give the order.
    "nemotron_h": {"activation": "relu2", "rotary_fraction": 0.0},
    "mamba2": {},
}

#: Symbols of a pattern: Mamba-2, attention, MLP.
SYMBOLS = "M*-"
_KNOWN_ELSEWHERE = {
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


class MambaConfig(Config):
    """Sizes of Mamba-2 blocks (arXiv 2405.21060), and how they start; zero means *derive it*."""

    state: int = Field(default=128, gt=0, le=1 << 14)
    """State channels of each head channel."""
    head_dim: int = Field(default=64, gt=0, le=1 << 14)
    """Channels of one head."""
    heads: int = Field(default=0, ge=0, le=1 << 16)
    """Heads of one block; derived: expand x hidden_size / head_dim."""
    groups: int = Field(default=0, ge=0, le=1 << 12)
    """Groups of heads that share their input and output matrices and the gated norm; derived:
    8, or the largest number below that divides the heads."""
    expand: int = Field(default=2, gt=0, le=64)
    """Inner width over hidden_size; read only where heads is not given."""
    conv: int = Field(default=4, gt=0, le=64)
    """Tokens that the causal convolution sees, its own included."""
    chunk: int = Field(default=64, gt=0, le=4096)
    """Tokens that the scan takes at once; decides speed, not the result."""
    conv_bias: bool = True
    """Bias of the convolution."""
    proj_bias: bool = False
    """Bias of the input and output projections."""
    dt_low: float = Field(default=0.0, ge=0.0)
    """Time steps are raised to this."""
    dt_high: float | None = Field(default=None, gt=0.0)
    """Time steps are cut to this; none by default."""
    dt_min: float = Field(default=1e-3, gt=0.0)
    """Smallest time step at the start of training."""
    dt_max: float = Field(default=0.1, gt=0.0)
    """Largest time step at the start of training."""
    dt_floor: float = Field(default=1e-4, gt=0.0)
    """Time steps at the start are raised to this."""
    a_min: float = Field(default=1.0, gt=0.0)
    """Slowest decay rate at the start of training."""
    a_max: float = Field(default=16.0, gt=0.0)
    """Fastest decay rate at the start of training."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        pairs = (("dt_min", "dt_max"), ("a_min", "a_max"), ("dt_low", "dt_high"))
        for low, high in pairs:
            above = getattr(self, high)
            if above is not None and getattr(self, low) > above:
                raise ValueError(f"{low} ({getattr(self, low)}) exceeds {high} ({above})")
        return self

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution mixes: inputs, input matrices, output matrices."""
        return self.inner + 2 * self.groups * self.state

    @property
    def projection(self) -> int:
        """Outputs of the input projection: gate, what the convolution reads, time steps."""
        return self.inner + self.conv_channels + self.heads

    def resolve(self, hidden_size: int) -> MambaConfig:
        """With ``heads`` and ``groups`` derived where they are zero.

        Raises:
            ValueError: sizes that do not divide one another, with the nearest legal values.
        """
        heads, groups = self.heads, self.groups
        if not heads:
            inner = self.expand * hidden_size
            if inner % self.head_dim:
                raise ValueError(
                    f"mamba.heads is not given and mamba.head_dim {self.head_dim} does not divide "
                    f"{self.expand} x hidden_size {hidden_size}; give mamba.heads, or use a "
                    f"mamba.head_dim of {_nearest_divisors(inner, self.head_dim)}"
                )
            heads = inner // self.head_dim
        if not groups:
            groups = next(g for g in range(min(8, heads), 0, -1) if heads % g == 0)
        if heads % groups:
            raise ValueError(
                f"mamba.groups {groups} does not divide mamba.heads {heads}; "
                f"nearest legal mamba.groups: {_nearest_divisors(heads, groups)}"
            )
        return self.replace(heads=heads, groups=groups)


class ModelConfig(Config):
    """Everything that fixes a decoder's parameters and its function.

    Zero and the empty string mean *derive it*: after validation every field holds its final value.
    Settings that are not given take the values of the layout (see :data:`LAYOUTS`).
    """

    layers: int = Field(gt=0, le=4096)
    """Attention+MLP pairs, as Hugging Face counts; for any other pattern, its length."""
    hidden_size: int = Field(gt=0, le=1 << 18)
    """Width of the residual stream."""
    heads: int = Field(default=0, ge=0, le=1 << 14)
    """Query heads of each attention block; needed where the pattern has one."""
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
    """One symbol a block: ``M`` Mamba-2, ``*`` attention, ``-`` MLP; ``|`` (a pipeline cut) is
    passed over. Derived: ``*-`` for each layer."""
    layout: str = ""
    """Hugging Face family that the model is read from and exported as; derived: llama, with
    Mamba-2 blocks nemotron_h, or mamba2 where there is nothing else."""
    mamba: MambaConfig | None = None
    """Sizes of the Mamba-2 blocks; only where the pattern has one."""
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
    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that attention looks back on, its own included; none for all."""
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
        given = self.model_fields_set
        own = self.__dict__  # the model is frozen for its users, not for its validator
        own["pattern"] = self.pattern.replace("|", "") or "*-" * self.layers
        self._check_pattern()
        if not self.layout:
            own["layout"] = _layout(self.pattern)
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is unknown (known: {', '.join(LAYOUTS)})")
        own.update({k: v for k, v in LAYOUTS[self.layout].items() if k not in given})
        if "*" in self.pattern:
            self._derive_heads()
        elif not self.heads:
            own.update(kv_heads=0, head_dim=0)
        if not self.intermediate_size and "-" in self.pattern:
            width = self.hidden_size
            own["intermediate_size"] = -(-8 * width // 192) * 64 if self.gated else 4 * width
        if "M" in self.pattern:
            own["mamba"] = (self.mamba or MambaConfig()).resolve(self.hidden_size)
        elif self.mamba is not None:
            raise ValueError(f"mamba is set, but pattern {self.pattern!r} has no Mamba-2 block (M)")
        self._check_rotation()
        return self

    def _derive_heads(self) -> None:
        if not self.heads:
            raise ValueError(f"heads is needed: pattern {self.pattern!r} has attention")
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
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads {self.kv_heads} does not divide heads {self.heads}; "
                f"nearest legal kv_heads: {_nearest_divisors(self.heads, self.kv_heads)}"
            )

    def _check_pattern(self) -> None:
        for index, symbol in enumerate(self.pattern):
            if symbol not in SYMBOLS:
                what = _KNOWN_ELSEWHERE.get(symbol)
                known = f" ({what}, which regrow does not build)" if what else ""
                raise ValueError(
                    f"pattern symbol {symbol!r} at index {index}{known}; use {' '.join(SYMBOLS)}"
                )
        expected = len(self.pattern) // 2 if self.is_transformer else len(self.pattern)
        if self.layers != expected:
            counted = "pairs" if self.is_transformer else "blocks"
            raise ValueError(
                f"layers is {self.layers}, but pattern {self.pattern!r} has {expected} {counted}"
            )

    def _check_rotation(self) -> None:
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
        if "pattern" in changes and "M" not in (changes["pattern"] or "M"):
            changes.setdefault("mamba", None)
        return super().replace(**changes)


def _layout(pattern: str) -> str:
    """The family that can hold a pattern, or comes nearest."""
    if "M" not in pattern:
        return "llama"
    return "nemotron_h" if pattern.strip("M") else "mamba2"


def _nearest_divisors(value: int, wanted: int) -> str:
    """The divisors of ``value`` next to ``wanted``, in words."""
    near = sorted((d for d in range(1, value + 1) if value % d == 0), key=lambda d: abs(d - wanted))
    return ", ".join(map(str, sorted(near[:2])))


def _multiples(value: int, factor: int) -> str:
    """The nearest hidden sizes that ``factor`` divides, in words."""
    below, above = value // factor * factor, (value // factor + 1) * factor
    return f"hidden_size {below} or {above}" if below else f"hidden_size {above}"
