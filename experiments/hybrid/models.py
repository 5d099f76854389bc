"""The compared models: one width, one depth, parameters made equal by the width of the MLP."""

from __future__ import annotations

import torch
from torch import nn

from regrow.core.seed import derive
from regrow.model.blocks import fill_normal
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.shapes import non_embedding_parameters

PATTERNS = {"transformer": "*-*-", "mamba2": "M-M-", "hybrid": "M-*-"}
STATE, WIDE_STATE = 8, 32
HIDDEN, MLP = 64, 128
EMBEDDING_STD = 0.5
_MLP_STEP = 8


def shape(model: str, vocab_size: int, state: int = STATE) -> ModelConfig:
    """The config of a named model, with the MLP width that brings it nearest to the hybrid.

    The hybrid has an MLP of twice the hidden size; widths are multiples of 8.
    """
    target = non_embedding_parameters(_shape("hybrid", vocab_size, STATE, MLP))
    widths = range(_MLP_STEP, 8 * MLP, _MLP_STEP)
    made = (_shape(model, vocab_size, state, width) for width in widths)
    return min(made, key=lambda config: abs(non_embedding_parameters(config) - target))


def _shape(model: str, vocab_size: int, state: int, width: int) -> ModelConfig:
    pattern = PATTERNS[model]
    mamba = MambaConfig(state=state, head_dim=16, groups=1, expand=2, conv=4, chunk=32)
    return ModelConfig(
        layers=2 if model == "transformer" else len(pattern),
        hidden_size=HIDDEN,
        heads=4 if "*" in pattern else 0,
        head_dim=16 if "*" in pattern else 0,
        intermediate_size=width,
        vocab_size=vocab_size,
        pattern=pattern,
        mamba=mamba if "M" in pattern else None,
        activation="relu2",
        rotary_fraction=1.0 if model == "transformer" else 0.0,
    )


def build(config: ModelConfig, seed: int) -> Decoder:
    """A fresh model: linears normal(0, 1 / sqrt(inputs)), embeddings normal(0, 0.5).

    At this width the usual 0.02 leaves every model at chance. Convolutions, decay rates and time
    steps start as the block has them.
    """
    generator = torch.Generator().manual_seed(derive(seed, "init"))
    model = Decoder(config)
    model.initialise(generator)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            fill_normal(module.weight, module.in_features**-0.5, generator)
    fill_normal(model.embed.weight, EMBEDDING_STD, generator)
    fill_normal(model.head.matrix, config.hidden_size**-0.5, generator)
    return model
