"""When blocks are compiled, that it changes rounding only, and that nothing breaks without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.core import atomic
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.train import compiled
from regrow.train.world import World
from tests.train.fakes import make_run

# torch's own, when its compiler is imported and when it looks at a tensor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


def decoder(**changes: Any) -> Decoder:
    given: dict[str, Any] = {
        "layers": 2, "pattern": "*-*-", "hidden_size": 32, "heads": 4, "kv_heads": 2,
        "vocab_size": 50, "intermediate_size": 64, "init_std": 0.2,
    }  # fmt: skip
    model = Decoder(ModelConfig(**given | changes))
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which compilers compile."""
    monkeypatch.setattr(compiled, "missing_compiler", lambda device: None)


class Rate:
    """A machine that multiplies at a known rate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
        monkeypatch.setattr(compiled, "product_rate", lambda module, rows: rate)


@pytest.mark.parametrize(
    ("flops", "threads", "expected"),
    [(0.9e12 * 1800, 2, False), (1.1e12 * 1800, 2, True), (1.1e12 * 1800, 3, False)],
)
@pytest.mark.usefixtures("works")
def test_auto_is_for_runs_of_half_an_hour(
    flops: float, threads: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rate(monkeypatch, 1e12)  # half of which a step gets, on each thread
    compiles, reason = compiled.decide("auto", decoder(), flops, 64, threads)
    assert compiles is expected
    assert expected or "minutes: too few" in reason


def test_what_is_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(device: torch.device) -> None:
        raise AssertionError("looking for a compiler takes seconds")

    monkeypatch.setattr(compiled, "missing_compiler", never)
    assert not compiled.decide("auto", decoder(), 1e6, 64, 1)[0]
    assert compiled.decide(False, decoder(), 1e30, 64, 1) == (False, "train.compile is false")
    sizes = MambaConfig(state=4, head_dim=8, heads=4, groups=2, chunk=8)
    only = decoder(pattern="MM", layers=2, mamba=sizes)
    assert "no attention or MLP" in compiled.decide(True, only, 1e30, 64, 1)[1]
    assert "parallel.tp" in compiled.decide(True, decoder(), 1e30, 64, 1, tensor=2)[1]


def test_the_rate_is_measured_here() -> None:
    assert 1e8 < compiled.product_rate(decoder(hidden_size=256), 64) < 1e13


def test_without_a_compiler_it_stays_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model, run = decoder(), make_run(tmp_path / "r")
    assert not compiled.choose(True, model, run, World(), 1e30, 64, 1)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["compile"]
    assert events[0]["message"] == "there is no C++ compiler (no-such-compiler)"
    assert events[0]["compiled"] is False
    assert all(block.compiled is None for block in model.blocks)
    assert atomic.read_json(run.path / "decisions.json") == {"compile": "eager"}


def test_a_compiler_that_fails_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(broken)))
    torch._dynamo.reset()
    missing = compiled.missing_compiler(torch.device("cpu"))
    torch._dynamo.reset()
    assert missing is not None
    assert missing.startswith("torch.compile does not work here (")


def test_an_attempt_that_goes_on_takes_the_path_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "missing_compiler", lambda device: None)
    Rate(monkeypatch, 1.0)
    assert compiled.choose("auto", decoder(), make_run(tmp_path / "r"), World(), 1e9, 64, 1)
    Rate(monkeypatch, 1e30)  # a machine on which it would never pay
    model, run = decoder(), make_run(tmp_path / "r")
    assert compiled.choose("auto", model, run, World(), 1e9, 64, 1)
    assert all(block.compiled is not None for block in model.blocks)
    monkeypatch.setattr(compiled, "missing_compiler", lambda device: "there is none")
    model, run = decoder(), make_run(tmp_path / "r")
    assert not compiled.choose("auto", model, run, World(), 1e9, 64, 1)
    last = json.loads((run.path / "events.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "resumed_differently"
    assert "compiled before, eager now: there is none" in last["message"]
    assert all(block.compiled is None for block in model.blocks)


def test_code_is_kept_with_the_users_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    compiled.use_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache/regrow/compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    compiled.use_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


HYBRID: dict[str, Any] = {
    "pattern": "M*-",
    "layers": 3,
    "mamba": MambaConfig(state=4, head_dim=8, heads=4, groups=2, chunk=8),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    ("changes", "packed", "recompute"),
    [
        ({"pattern": "*-", "layers": 1}, False, False),
        ({"pattern": "*-", "layers": 1, "layout": "nemotron"}, True, False),
        ({"pattern": "*-", "layers": 1, "qk_norm": True, "layout": "qwen3"}, False, True),
        (HYBRID, False, False),
    ],
)
def test_compiled_and_eager_agree_to_rounding(
    changes: dict[str, Any], packed: bool, recompute: bool, bf16: bool
) -> None:
    if compiled.missing_compiler(torch.device("cpu")) is not None:
        pytest.skip("there is no working C++ compiler")
    tokens = torch.randint(50, (2, 40), generator=torch.Generator().manual_seed(1))
    documents = torch.arange(40).expand(2, 40) // 15 if packed else None

    def gradients(model: Decoder) -> tuple[float, dict[str, torch.Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss, _ = model.head.cross_entropy(model.hidden(tokens, documents), tokens)
        loss.backward()
        return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    eager, fused = decoder(**changes), decoder(**changes)
    assert compiled.compile_blocks(fused) == sum(s in "*-" for s in eager.config.pattern)
    for block in fused.blocks:
        block.recompute = recompute  # type: ignore[assignment]
    from torch._dynamo.utils import counters

    counters.clear()
    loss, expected = gradients(eager)
    found, ours = gradients(fused)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == len(set(eager.config.pattern) & set("*-"))
    assert found == pytest.approx(loss, rel=2e-3 if bf16 else 1e-5)
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        bound = (0.03 if bf16 else 1e-4) * gradient.norm()
        assert (ours[name] - gradient).norm() <= bound, name
    torch._dynamo.reset()
