"""Held-out loss; the loop in ``train`` measures by the same function."""

from regrow.train.held_out import held_out

__all__ = ["held_out"]
