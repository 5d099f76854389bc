"""Closed forms of a shape: tensors, parameters, FLOPs, bytes. Exact, and without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from regrow.model.config import ModelConfig

Shape = tuple[int, ...]


def _norm(config: ModelConfig, name: str) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (config.hidden_size,)
    if config.norm == "layernorm1p":
        yield f"{name}.bias", (config.hidden_size,)


def _linear(name: str, inputs: int, outputs: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _attention(config: ModelConfig, name: str) -> Iterator[tuple[str, Shape]]:
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    width = config.hidden_size
    yield from _linear(f"{name}.q_proj", width, query, config.qkv_bias)
    yield from _linear(f"{name}.k_proj", width, key, config.qkv_bias)
    yield from _linear(f"{name}.v_proj", width, key, config.qkv_bias)
    yield from _linear(f"{name}.o_proj", query, width, config.output_bias)
    if config.qk_norm:
        yield f"{name}.q_norm.weight", (config.head_dim,)
        yield f"{name}.k_norm.weight", (config.head_dim,)


def _mlp(config: ModelConfig, name: str) -> Iterator[tuple[str, Shape]]:
    width, inner = config.hidden_size, config.intermediate_size
    if config.gated:
        yield from _linear(f"{name}.gate_proj", width, inner, config.mlp_bias)
    yield from _linear(f"{name}.up_proj", width, inner, config.mlp_bias)
    yield from _linear(f"{name}.down_proj", inner, width, config.mlp_bias)


def _mamba(config: ModelConfig, name: str) -> Iterator[tuple[str, Shape]]:
    sizes = config.mamba
    assert sizes is not None  # a config with M has them
    yield from _linear(f"{name}.in_proj", config.hidden_size, sizes.projection, sizes.proj_bias)
    yield f"{name}.conv1d.weight", (sizes.conv_channels, 1, sizes.conv)
    if sizes.conv_bias:
        yield f"{name}.conv1d.bias", (sizes.conv_channels,)
    for part in ("A_log", "D", "dt_bias"):
        yield f"{name}.dynamics.{part}", (sizes.heads,)
    yield f"{name}.norm.weight", (sizes.inner,)
    yield from _linear(f"{name}.out_proj", sizes.inner, config.hidden_size, sizes.proj_bias)


_BLOCKS: dict[str, Callable[[ModelConfig, str], Iterator[tuple[str, Shape]]]] = {
    "M": _mamba,
    "*": _attention,
    "-": _mlp,
}


def tensor_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name and shape of each tensor of a decoder's state dict, in its order."""
    shapes: dict[str, Shape] = {"embed.weight": (config.vocab_size, config.hidden_size)}
    for index, symbol in enumerate(config.pattern):
        shapes.update(_norm(config, f"blocks.{index}.norm"))
        shapes.update(_BLOCKS[symbol](config, f"blocks.{index}.mixer"))
    shapes.update(_norm(config, "norm"))
    if not config.tie_embeddings:
        shapes["head.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


def _size(shape: Shape) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


def block_parameters(config: ModelConfig, symbol: str) -> int:
    """Parameters of one block of kind ``symbol``, its norm included."""
    norm = sum(_size(shape) for _, shape in _norm(config, ""))
    return norm + sum(_size(shape) for _, shape in _BLOCKS[symbol](config, ""))


def non_embedding_parameters(config: ModelConfig) -> int:
    """Parameters outside the embedding and the output matrix."""
    blocks = sum(
        config.pattern.count(symbol) * block_parameters(config, symbol)
        for symbol in set(config.pattern)
    )
    return blocks + sum(_size(shape) for _, shape in _norm(config, ""))


def parameters(config: ModelConfig) -> int:
    """All parameters; a tied output matrix counts once."""
    matrices = 1 if config.tie_embeddings else 2
    return non_embedding_parameters(config) + matrices * config.vocab_size * config.hidden_size


def scan_flops_per_token(config: ModelConfig) -> int:
    """Forward FLOPs of the state-space scans on one token, all blocks, in chunks of Q tokens.

    ``2 (Q N G + Q H P + 2 H P N)`` a block: G groups, H heads of P channels, N state channels.

    Source: the matrix products of the chunked form (arXiv 2405.21060, section 6).
    """
    sizes = config.mamba
    if sizes is None:
        return 0
    inside = sizes.chunk * (sizes.state * sizes.groups + sizes.inner)
    return config.pattern.count("M") * 2 * (inside + 2 * sizes.inner * sizes.state)


def flops_per_token(config: ModelConfig, sequence: int, causal: bool = False) -> int:
    """Model FLOPs of training on one token, forward and backward.

    ``6 (N + V d) + 12 L H c s + 3 x scans``: N non-embedding parameters, V vocabulary, d hidden
    size, L attention blocks, H heads of c channels, s sequence; scans as in
    :func:`scan_flops_per_token`. The input embedding is a look-up and does not count, the output
    projection does, recomputation does not.

    Args:
        config: the shape.
        sequence: tokens in a row.
        causal: count only the half of attention's products that the causal mask keeps. The
            published utilisation figures do not (34.3 % at 768 GPUs), so the default is False.

    Source: the convention that reproduces table 2 of Nemotron-4 15B (arXiv 2402.16819):
        93.999 GFLOP a token at 4096.
    """
    dense = 6 * (non_embedding_parameters(config) + config.vocab_size * config.hidden_size)
    seen = min(sequence, config.sliding_window or sequence)
    attention = 12 * config.pattern.count("*") * config.heads * config.head_dim * seen
    mixed = attention // 2 if causal else attention
    return dense + mixed + 3 * scan_flops_per_token(config)


def forward_flops_per_token(config: ModelConfig, sequence: int, causal: bool = False) -> int:
    """Model FLOPs of one token's forward pass: a third of :func:`flops_per_token`."""
    return flops_per_token(config, sequence, causal) // 3


def decode_flops_per_token(config: ModelConfig, context: int) -> int:
    """FLOPs of making one token after ``context`` others, with the cache.

    ``2 (N + V d) + 4 L H c s``, and ``6 H P N`` for each Mamba-2 block: decay, update and read-out
    of its state.
    """
    dense = 2 * (non_embedding_parameters(config) + config.vocab_size * config.hidden_size)
    seen = min(context, config.sliding_window or context)
    attention = 4 * config.pattern.count("*") * config.heads * config.head_dim * seen
    sizes = config.mamba
    states = config.pattern.count("M") * 6 * sizes.inner * sizes.state if sizes else 0
    return dense + attention + states


def kv_bytes_per_token(config: ModelConfig, bytes: int = 2) -> int:
    """Bytes that each cached token takes in the key/value caches of one sequence."""
    return 2 * config.pattern.count("*") * config.kv_heads * config.head_dim * bytes


def state_bytes(config: ModelConfig, bytes: int = 2) -> int:
    """Bytes that the Mamba-2 blocks remember of one sequence, whatever its length.

    The state, H P N numbers a block, is fp32; the window of the convolution has ``bytes`` a number.
    """
    sizes = config.mamba
    if sizes is None:
        return 0
    window = (sizes.conv - 1) * sizes.conv_channels * bytes
    return config.pattern.count("M") * (4 * sizes.inner * sizes.state + window)


def crossover_tokens(config: ModelConfig, other: ModelConfig, bytes: int = 2) -> int | None:
    """Context from which ``config`` remembers less than ``other``; None where that never happens.

    The first length n with ``state + n kv <= other's state + n other's kv``.
    """
    state = state_bytes(config, bytes) - state_bytes(other, bytes)
    saved = kv_bytes_per_token(other, bytes) - kv_bytes_per_token(config, bytes)
    if state <= 0:
        return 0 if saved >= 0 else None
    return -(-state // saved) if saved > 0 else None


def weight_bytes(config: ModelConfig, bytes: int = 2) -> int:
    """Bytes of all weights at ``bytes`` each."""
    return parameters(config) * bytes


def mfu(
    flops_per_token: float, tokens_per_second: float, peak_flops: float, devices: int = 1
) -> float:
    """Model FLOPs utilisation, in [0, 1].

    Args:
        flops_per_token: forward and backward, attention not halved, recomputation not counted
            (:func:`flops_per_token`).
        tokens_per_second: of all devices together.
        peak_flops: of one device, in FLOP per second at the precision of the run.
        devices: how many.

    Source: this convention reproduces table 2 of Nemotron-4 15B (arXiv 2402.16819).
    """
    return flops_per_token * tokens_per_second / (peak_flops * devices)
