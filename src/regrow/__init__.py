"""regrow grows a family of models from one that you already have.

::

    import regrow
    model = regrow.load("runs/family/base/export")   # a torch.nn.Module
    logits = model(tokens)                           # (batch, sequence, vocab)
    regrow.save(model, "my-model")                   # an ordinary Hugging Face folder
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "save"]

_LAZY = {"load": "regrow.model.folder", "save": "regrow.model.folder"}


def __getattr__(name: str) -> Any:
    """Import torch only once a model is asked for."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'regrow' has no attribute {name!r}")
