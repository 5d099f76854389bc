"""The control arm of ``continue``: what it reads, that it resumes, that it is counted apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regrow.core import atomic
from regrow.core.config import load_config
from regrow.core.errors import ConfigError, Interrupted
from regrow.core.metrics_log import MetricsLog
from regrow.core.run import Run
from regrow.grow.execute import execute
from regrow.report.format import difference as written
from regrow.train.config import ContinueConfig
from regrow.train.control import control_config, difference
from regrow.train.jobs import continue_
from tests.train.corpus import continue_config, execute_job, pretrain_base, write_corpus
from tests.train.fakes import without_times

# One thread: a forked process must not wait for its parent's others.
ONE_CORE = ("control_arm=true", "save.every_tokens=192", "train.threads=1")
TIMED = ("seconds", "seconds_training", "tokens_per_second", "run")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "base"
    blend = "data.phases=[{name: A, weights: {prose: 0.8, code: 0.2}}]"
    pretrain_base(corpus, folder, blend)
    return folder


@pytest.fixture(scope="module")
def whole(corpus: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a quiet run with a control."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return execute("continue", _config(corpus, base), folder, quiet=True)


def _config(corpus: Path, base: Path, *words: str) -> ContinueConfig:
    return continue_config(corpus, base, *ONE_CORE, *words)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMED}
    return value


def test_the_control_is_a_continuation_on_the_blend_of_the_pretraining(
    corpus: Path, base: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """The same figures as a plain ``continue`` whose only phase is blend A, bit for bit."""
    phases = "data.phases=[{name: A, weights: {prose: 0.8, code: 0.2}}]"
    plain, _ = execute_job(
        continue_, continue_config(corpus, base, phases, ONE_CORE[2]), tmp_path / "plain"
    )
    control = whole["control"]
    assert control["weights"] == {"prose": 0.8, "code": 0.2}
    assert control["weights_sha256"] == plain["weights_sha256"]
    assert control["losses"] == plain["losses"]
    assert (control["tokens"], control["flops"]) == (plain["tokens"], plain["flops"])
    recipe, _ = execute_job(
        continue_, continue_config(corpus, base, ONE_CORE[2]), tmp_path / "recipe"
    )
    for key in ("tokens", "flops", "loss", "losses", "weights_sha256", "ledger"):
        assert whole[key] == recipe[key], f"{key} is that of the recipe alone"
    assert whole["difference"]["loss"] == recipe["loss"] - plain["loss"] != 0
    for name in ("prose", "code"):
        gained = whole["difference"]["losses"][name]
        assert gained == recipe["losses"][name] - plain["losses"][name]


def test_the_page_tells_the_difference_and_the_tree_has_one_model(whole: dict[str, Any]) -> None:
    from regrow.core.lineage import tree

    folder = Path(whole["run"])
    page = (folder / "report.html").read_text()
    assert "Against the control arm" in page
    assert written(whole["difference"]["loss"]) in page
    assert [node.path for node in tree(folder)] == [folder]
    assert atomic.read_json(folder / "lineage.json")["tokens"] == whole["tokens"]


@pytest.mark.parametrize("arm", ["recipe", "control"])
def test_an_interrupted_arm_goes_on(
    corpus: Path, base: Path, whole: dict[str, Any], tmp_path: Path, arm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = _config(corpus, base)
    run = Run.claim(tmp_path / "r", "continue", config, quiet=True)
    append = MetricsLog.append
    here = tmp_path / "r" / ("trials/control" if arm == "control" else "")

    def stopping(log: MetricsLog, record: dict[str, Any]) -> None:
        append(log, record)
        if log.path.parent == here and record["step"] == 10:
            run.stop_requested = True

    monkeypatch.setattr(MetricsLog, "append", stopping)
    with pytest.raises(Interrupted):
        continue_.run(config, run)
    run.release()
    monkeypatch.undo()
    assert (tmp_path / "r/trials/control").exists() == (arm == "control")
    result = execute("continue", config, tmp_path / "r", quiet=True)
    assert _timeless(result) == _timeless(whole)
    for log in ("metrics.jsonl", "trials/control/metrics.jsonl"):
        ours, theirs = (
            without_times(MetricsLog(folder / log).read())
            for folder in (tmp_path / "r", Path(whole["run"]))
        )
        assert ours == theirs


def test_kills_change_nothing(
    corpus: Path, base: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """The process is killed while the recipe trains, and while the control does."""
    config = _config(corpus, base)
    for folder in (tmp_path / "r", tmp_path / "r/trials/control"):
        child = os.fork()
        if not child:
            try:
                execute("continue", config, tmp_path / "r", quiet=True)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 60
        while not list(folder.glob("checkpoints/step-*/MANIFEST.json")):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert not (folder / "result.json").exists()
    result = execute("continue", config, tmp_path / "r", quiet=True)
    assert _timeless(result) == _timeless(whole)


def test_weights_of_the_control_replace_what_is_recorded(corpus: Path, base: Path) -> None:
    plan = continue_.plan(_config(corpus, base, "control.weights={code: 3, prose: 1}"))
    assert plan.figures["control"]["weights"] == {"code": 0.75, "prose": 0.25}
    assert plan.figures["control"]["tokens"] == plan.figures["tokens"]


def test_phases_of_a_pretraining_are_mixed_by_their_tokens(
    corpus: Path, base: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(base, tmp_path / "base")
    path = tmp_path / "base/training_schedule.json"
    record = atomic.read_json(path)
    first = record["phases"][0]
    record["phases"] = [
        first | {"steps": 3, "weights": {"prose": 1.0}},
        first | {"steps": 1, "weights": {"prose": 0.2, "code": 0.8}},
    ]
    atomic.write_json(path, record)
    made = control_config(_config(corpus, tmp_path / "base")).data.phases
    assert [phase.weights for phase in made] == [{"prose": 0.8, "code": 0.2}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["control.weights={prosa: 1.0}"], r"control\.weights\.prosa: no shard of this name"),
        (["data.max_epochs={code: 0.01}"], r"data\.max_epochs\.code"),
        (["control_arm=false", "control.weights={code: 1.0}"], "no effect without control_arm"),
    ],
)
def test_a_control_that_cannot_be_is_refused(
    corpus: Path, base: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        continue_.plan(_config(corpus, base, *words))


def test_a_model_without_a_record_needs_weights(corpus: Path, base: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(base / "export", tmp_path / "model")
    words = ("optim.start=1e-4",)
    with pytest.raises(ConfigError, match=r"set control\.weights"):
        continue_.plan(_config(corpus, tmp_path / "model", *words))
    given = ("control.weights={code: 1.0}", *words)
    assert continue_.plan(_config(corpus, tmp_path / "model", *given)).figures["control"]


def test_a_difference_is_recipe_minus_control() -> None:
    ours = {"loss": 2.0, "losses": {"a": 1.0, "b": 3.0}, "bits_per_byte": {"all": 0.5}}
    theirs = {"loss": 2.5, "losses": {"a": 2.0}, "bits_per_byte": {"all": 0.25}}
    assert difference(ours, theirs) == {
        "loss": -0.5,
        "losses": {"a": -1.0},
        "bits_per_byte": {"all": 0.25},
    }


def test_resolved_config_read_again_is_the_same(corpus: Path, base: Path, tmp_path: Path) -> None:
    config = _config(corpus, base, "control.weights={code: 1.0}")
    (tmp_path / "c.yaml").write_text(config.as_yaml())
    assert load_config(ContinueConfig, [tmp_path / "c.yaml"]) == config


@pytest.mark.slow
def test_two_processes_make_the_same_control(
    corpus: Path, base: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(_config(corpus, base).as_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(31500 + os.getpid() % 2000), "-m", "--", "regrow", "continue"]
    command += ["--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "r"), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    result = atomic.read_json(tmp_path / "r/result.json")
    for ours, theirs in ((result, whole), (result["control"], whole["control"])):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert (ours["tokens"], ours["flops"]) == (theirs["tokens"], theirs["flops"])
