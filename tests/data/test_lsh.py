"""The curve of the bands, and how many bands a threshold takes."""

from __future__ import annotations

import pytest
from scipy.integrate import quad

from regrow.core.config import load_config
from regrow.core.errors import ConfigError
from regrow.data.lsh import STRICT, WEB, Lsh, best_bands, resolve
from regrow.data.settings.fuzzy import FuzzyConfig


def config(**values: object) -> FuzzyConfig:
    return load_config(FuzzyConfig, base=values)


@pytest.mark.parametrize(
    ("lsh", "found"), [(WEB, (0.564, 0.924, 1.000)), (STRICT, (0.177, 0.677, 0.997))]
)
def test_presets_find_what_their_users_publish(lsh: Lsh, found: tuple[float, ...]) -> None:
    assert lsh.found([0.7, 0.8, 0.9]) == pytest.approx(found, abs=0.001)


def test_half_is_found_where_the_curve_says() -> None:
    for lsh in (WEB, STRICT, Lsh(1, 1, "word", 1, 0.5)):
        assert float(lsh.found(lsh.half())) == pytest.approx(0.5)


def test_masses_are_the_areas_between_curve_and_step() -> None:
    missed, extra = WEB.masses()
    assert missed == pytest.approx(quad(lambda s: (1 - s**8) ** 14, 0.8, 1)[0], rel=1e-4)
    assert extra == pytest.approx(quad(lambda s: 1 - (1 - s**8) ** 14, 0, 0.8)[0], rel=1e-4)


@pytest.mark.parametrize(("threshold", "hashes"), [(0.5, 16), (0.8, 16), (0.9, 24)])
def test_the_best_bands_are_the_best_of_all(threshold: float, hashes: int) -> None:
    def wrong(bands: int, rows: int) -> float:
        def found(s: float) -> float:
            return 1 - (1 - s**rows) ** bands

        return quad(found, 0, threshold)[0] + quad(lambda s: 1 - found(s), threshold, 1)[0]

    pairs = [(b, r) for b in range(1, hashes + 1) for r in range(1, hashes // b + 1)]
    assert wrong(*best_bands(threshold, hashes)) == pytest.approx(
        min(wrong(*pair) for pair in pairs), abs=1e-4
    )


def test_a_higher_threshold_is_stricter() -> None:
    halves = [Lsh(*best_bands(t, 112), "word", 5, t).half() for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert halves == sorted(halves)
    for threshold, half in zip((0.5, 0.6, 0.7, 0.8, 0.9), halves, strict=True):
        assert half == pytest.approx(threshold, abs=0.05)


class TestSettings:
    def test_presets(self) -> None:
        assert resolve(config()) == WEB
        assert resolve(config(preset="strict")) == STRICT

    def test_bands_and_rows_win(self) -> None:
        found = resolve(config(bands=4, rows=3, threshold=0.6))
        assert (found.bands, found.rows, found.threshold, found.unit) == (4, 3, 0.6, "word")

    def test_a_threshold_chooses_within_the_budget(self) -> None:
        found = resolve(config(threshold=0.8))
        assert (found.bands, found.rows) == best_bands(0.8, 112)
        assert resolve(config(threshold=0.8, hashes=64)).hashes <= 64

    def test_shingle(self) -> None:
        found = resolve(config(shingle={"unit": "character", "n": 9}))
        assert (found.unit, found.n, found.bands) == ("character", 9, 14)

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"bands": 4}, "bands is set without rows"),
            ({"rows": 4}, "rows is set without bands"),
            ({"hashes": 64}, "64 has no effect without threshold"),
            ({"bands": 4, "rows": 2, "hashes": 64}, "64 has no effect beside bands and rows"),
            ({"threshold": 1.5}, "threshold"),
            ({"preset": "wbe"}, "preset"),
            ({"shingle": {"unit": "char", "n": 5}}, "unit"),
        ],
    )
    def test_settings_that_cannot_be(self, values: dict[str, object], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            config(**values)
