from __future__ import annotations

import pytest

from regrow.model.presets import PRESETS
from regrow.model.shapes import flops_per_token, mfu
from regrow.train.metrics import Window, sources_read, speed
from tests.train.fakes import FakeLoader


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


@pytest.mark.parametrize(
    ("devices", "sequences", "seconds", "expected", "halved"),
    [
        (768, 384, 0.57, 0.3415, 0.324),
        (1536, 768, 0.58, 0.3356, 0.318),
        (2304, 1152, 0.64, 0.3041, 0.289),
    ],
)
def test_a_record_tells_both_conventions(
    devices: int, sequences: int, seconds: float, expected: float, halved: float
) -> None:
    """With attention halved the same table would read 32.4, 31.8 and 28.9 %."""
    shape = PRESETS["nemotron4-15b"]
    flops = flops_per_token(shape, 4096), flops_per_token(shape, 4096, causal=True)
    fields = speed(sequences * 4096 / seconds, *flops, 989e12, devices)
    assert fields["mfu"] == pytest.approx(expected, abs=1e-4)
    assert fields["mfu_causal"] == pytest.approx(halved, abs=6e-4)
    assert fields["tokens_per_second_device"] == pytest.approx(
        sequences * 4096 / seconds / devices, abs=0.1
    )
    assert fields["tokens_per_second"] == pytest.approx(sequences * 4096 / seconds, abs=0.1)


def test_without_a_known_peak_there_is_only_the_rate() -> None:
    assert speed(1234.56, 1e6, 9e5) == {"tokens_per_second": 1234.6}


def test_tokens_by_source_are_differences_of_the_ledger() -> None:
    class Two(FakeLoader):
        def ledger(self, samples: int) -> dict[str, dict[str, float]]:
            odd = samples // 2
            return {
                "a": {"tokens": 6 * (samples - odd), "epochs": 0.0},
                "b": {"tokens": 6 * odd, "epochs": 0.0},
            }

    assert sources_read(Two(), 3, 8) == {"sources": {"a": 12, "b": 18}}
    assert sources_read(Two(), 2, 3) == {"sources": {"a": 6}}
    assert sources_read(FakeLoader(), 0, 8) == {}


def test_a_window_of_an_older_checkpoint_is_read() -> None:
    window = Window()
    window.add(6.0, 3.0, 2.0, {})
    record = window.as_json()
    del record["averaged"], record["skipped"]
    assert Window.from_json(record).averages() == {"loss": 2.0, "grad_norm": 2.0}
    assert Window().averages() == {}
