from __future__ import annotations

import pytest

from regrow.model.presets import PRESETS
from regrow.model.shapes import flops_per_token
from regrow.train.metrics import mfu


@pytest.mark.parametrize(
    ("devices", "sequences", "seconds", "expected"),
    [(768, 384, 0.57, 0.3415), (1536, 768, 0.58, 0.3356), (2304, 1152, 0.64, 0.3041)],
)
def test_published_utilisation(
    devices: int, sequences: int, seconds: float, expected: float
) -> None:
    """Nemotron-4 15B (arXiv 2402.16819), table 2: 34.3, 33.3 and 30.5 % as reported."""
    flops = flops_per_token(PRESETS["nemotron4-15b"], 4096)
    rate = sequences * 4096 / seconds
    assert mfu(flops, rate, 989e12, devices) == pytest.approx(expected, abs=1e-4)
