"""The importance pass over a model that does not fit into memory: one block's weights at a time.

The decoder here is one whose blocks have no weights but while they run. Whatever watches a decoder
by hooks on its modules (:class:`regrow.compress.importance.Observer`) watches this one unchanged,
and sees the same numbers. Every forward pass reads the whole folder, so it should take as many
windows as there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from regrow.compress.depth import layer_blocks
from regrow.compress.importance_config import ImportanceConfig, is_streamed
from regrow.core.hardware import memory_bytes
from regrow.model.blocks import Block
from regrow.model.cache import Cache
from regrow.model.config import ModelConfig
from regrow.model.decoder import Decoder
from regrow.model.folder import Opened, kept_dtype, load, opened
from regrow.train.device import resolve_device

#: Share of the memory that activations may take.
_ROOM = 0.25
#: Tensors of a block's inner width that are alive at once.
_INNER = 6


class StreamedDecoder(Decoder):
    """A decoder on the CPU that reads each block from its folder when it comes to it.

    Only :meth:`hidden` works, without a cache: there is no output head.

    Args:
        source: the open folder; must stay open as long as this is used.
        dtype: of weights and activations; by default the folder's.
    """

    def __init__(self, source: Opened, dtype: torch.dtype | None = None) -> None:
        with torch.device("meta"):
            super().__init__(source.config)
        self._source = source
        self._dtype = dtype or source.dtype
        # Of a memory map only the rows that are looked up are ever read.
        table = source.weights.mapped(source.names["embed.weight"])
        self.embed.weight = nn.Parameter(table, requires_grad=False)
        self._fill(self.norm, "norm.")
        self.requires_grad_(False)

    def hidden(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        cache: Cache | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """As of :class:`~regrow.model.decoder.Decoder`.

        Raises:
            ValueError: a cache was given.
            InputError: the folder changed or broke since it was opened.
        """
        if cache is not None:
            raise ValueError("a decoder that is read block by block does not decode with a cache")
        context = self._context(tokens, documents, None, valid)
        x = self.embed(tokens).to(self._dtype)
        for index, module in enumerate(self.blocks):
            block = cast(Block, module)
            empty = block.state_dict()
            self._fill(block, f"blocks.{index}.")
            x = block(x, context)
            block.load_state_dict(empty, assign=True)
            self._source.weights.close()  # or the pages of every file would gather
        return cast(Tensor, self.norm(x))

    def _fill(self, module: nn.Module, prefix: str) -> None:
        state = {}
        for name in module.state_dict():
            whole = self._source.weights.tensor(self._source.names[prefix + name])
            state[name] = whole.to(kept_dtype(prefix + name, self._dtype))
        module.load_state_dict(state, assign=True)


def windows_at_once(model: ModelConfig, sequence: int) -> int:
    """Windows whose activations take a quarter of the memory; at least 1.

    Args:
        model: the shape.
        sequence: tokens of a window.
    """
    inner = [model.intermediate_size, model.heads * model.head_dim]
    if model.mamba is not None:
        inner.append(model.mamba.projection)
    streams = len(layer_blocks(model)) + 3
    numbers = streams * model.hidden_size + _INNER * max(inner)
    return max(1, int(_ROOM * memory_bytes()) // (4 * numbers * sequence))


@contextmanager
def calibrated(config: ImportanceConfig, folder: Path) -> Iterator[tuple[Decoder, int]]:
    """The model to measure, and how many windows it takes at once.

    Args:
        config: settings of ``importance``.
        folder: of the model.

    Raises:
        InputError: as :func:`regrow.model.folder.load`.
    """
    with opened(folder) as source:
        if is_streamed(config, source.config):
            at_once = windows_at_once(source.config, config.sequence)
            yield StreamedDecoder(source), max(at_once, config.micro_batch)
            return
    yield load(folder).to(resolve_device("auto")), config.micro_batch
