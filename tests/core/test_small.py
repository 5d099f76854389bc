"""Registry, seeds, hardware, numbers for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.core import hardware
from regrow.core.errors import ConfigError
from regrow.core.progress import amount_text, duration
from regrow.core.registry import Registry
from regrow.core.seed import derive


def test_registry_imports_lazily_and_names_the_nearest() -> None:
    registry: Registry[object] = Registry("step", {"exact": "math:sqrt", "broken": "no_such:thing"})
    assert registry.names() == ["exact", "broken"]
    assert registry.get("exact") is __import__("math").sqrt
    with pytest.raises(ConfigError, match=r"unknown step 'exat', did you mean exact\?"):
        registry.get("exat")
    registry.add("floor", "math:floor")
    with pytest.raises(ConfigError, match="already registered"):
        registry.add("floor", "math:ceil")


@given(st.integers(0, 2**62), st.text(), st.text())
def test_seeds_depend_on_every_name(seed: int, a: str, b: str) -> None:
    assert 0 <= derive(seed, a) < 2**63
    assert (derive(seed, a) == derive(seed, b)) == (a == b)
    assert derive(seed, a, b) != derive(seed, a + b)


def test_seed_is_the_same_on_each_machine() -> None:
    assert derive(0, "init") == derive(0, "init")
    assert derive(0, "sample", 17) != derive(0, "sample", 18)


def test_hardware_is_sane() -> None:
    assert 1 <= hardware.cpu_count() <= 4096
    assert hardware.memory_bytes() > 1 << 28
    assert hardware.fingerprint()["cores"] == hardware.cpu_count()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (61, "1m01s"), (3700, "1h01m"), (-3, "0s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(950, "950"), (12_345, "12.3k"), (4.56e6, "4.56M"), (7.8e9, "7.8B"), (2e13, "20T")],
)
def test_amounts(amount: float, text: str) -> None:
    assert amount_text(amount) == text
