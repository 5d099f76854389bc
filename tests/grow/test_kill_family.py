"""The main recipe, small: killed once in each stage, it ends with the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regrow.core import atomic
from regrow.core.run import read_status

RECIPE = Path(__file__).parents[2] / "recipes" / "family.yaml"
SMALL = [
    "stages.corpus.config.sources.0.max_bytes="
    "{code: 300000, docstrings: 200000, reference: 100000, packages: 100000}",
    "stages.tokenizer.config.vocab_size=600",
    "stages.base.config.train.tokens=20480",
    "stages.base.config.eval.every_tokens=8192",
    "stages.continued.config.train.tokens=8192",
    "stages.children.config.samples=16",
    "stages.children.config.train.tokens=4096",
    "stages.children.config.trial={tokens: 8192, score_tokens: 256}",
    "stages.children.config.save.every_tokens=1024",
    "stages.evaluation.config.max_tokens=1024",
    "stages.evaluation.config.samples.new_tokens=4",
    "stages.evaluation.config.decode={repeats: 1, new_tokens: 4}",
    *(f"stages.{n}.config.train.tokens=4096" for n in ("scratch-50", "scratch-30")),
    *(f"stages.{n}.config.train.tokens=8192" for n in ("scratch-50-2x", "scratch-30-2x")),
]
STAGES = [
    "corpus", "tokenizer", "shards", "base", "continued", "children", "children/half",
    "children/third", "scratch-50", "scratch-50-2x", "scratch-30", "scratch-30-2x", "evaluation",
]  # fmt: skip


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regrow", "grow", str(RECIPE), *SMALL, "--run", str(folder)]
    return subprocess.Popen(
        [*command, "--quiet"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def weights(folder: Path) -> dict[str, str]:
    result = atomic.read_json(folder / "result.json")
    paths = {model["name"]: Path(model["path"]) for model in result["models"]}
    return {k: atomic.sha256_file(p / "model.safetensors") for k, p in paths.items()}


def figures(folder: Path) -> list[tuple[object, ...]]:
    result = atomic.read_json(folder / "result.json")
    return [(m["name"], m["loss"], m["flops"], m["tokens"]) for m in result["models"]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_in_each_stage_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait() == 0
    rng = random.Random(0)
    hits: set[str] = set()
    killed = tmp_path / "killed"
    while True:
        process = start(killed)
        while process.poll() is None:
            running = [
                name
                for name in STAGES
                if name not in hits and read_status(killed / name).get("state") == "running"
            ]
            if running:
                time.sleep(rng.uniform(0, 0.3))
                process.send_signal(signal.SIGKILL)
                process.wait()
                hits.update(
                    name for name in running if read_status(killed / name)["state"] == "running"
                )
                break
            time.sleep(0.005)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert len(hits) >= len(STAGES) - 3, sorted(set(STAGES) - hits)  # some last a few ms only
    assert weights(killed) == weights(tmp_path / "whole")
    assert figures(killed) == figures(tmp_path / "whole")
