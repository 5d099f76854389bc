"""The benchmark for GPUs runs from end to end on a tiny shape; its figures are not looked at."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def benchmark_script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks/gpu_train.py"
    spec = importlib.util.spec_from_file_location("gpu_train", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_smoke(
    benchmark_script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["--smoke", "--no-compile", "--steps", "1", "--rounds", "2", "--peak-flops", "1e12"]
    figures = benchmark_script.measure(benchmark_script.parse(words), tmp_path)
    tokens = 4 * 32
    for row in figures["loops"].values():
        assert row["tokens_per_second"] == pytest.approx(tokens / row["seconds_per_step"])
        flops = 6 * figures["parameters"] + 12 * 2 * 32 * 32 - 6 * 128 * 32  # no input embedding
        norms = 6 * 5 * 32  # nor gains
        rate = row["tokens_per_second"] * (flops - norms)
        assert row["mfu"] == pytest.approx(rate / 1e12, rel=0.01)
    assert figures["not_compiled"] == "not asked for"


def test_peaks(benchmark_script: ModuleType) -> None:
    assert benchmark_script.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert benchmark_script.peak_of("NVIDIA H100 PCIe") == 756e12
    assert benchmark_script.peak_of("something else") == 0
