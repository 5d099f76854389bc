"""Help, plans, errors and exit codes, through the command that a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regrow.grow.verbs import VERBS
from tests.cli.conftest import Command

SHOWN = [name for name, verb in VERBS.items() if not verb.hidden]
READING = ["plan", "tree", "runs list", "runs show", "config show"]
READING += ["curate plan", "curate explain", "curate weights"]


def test_help_lists_every_verb_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from regrow.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'daft', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    for name in SHOWN:
        assert f"  {name.split()[0]} " in done.stdout


def test_importing_the_package_imports_no_torch() -> None:
    code = "import regrow, sys; assert 'torch' not in sys.modules; print(sorted(regrow.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['__version__', 'load', 'save']\n"


@pytest.mark.parametrize("name", SHOWN + READING)
def test_each_verb_has_help_with_an_example(regrow: Command, name: str) -> None:
    done = regrow(*name.split(), "--help")
    assert done.returncode == 0
    assert f"regrow {name}" in done.stdout.split("Example:")[1]


@pytest.mark.parametrize("name", SHOWN)
def test_each_setting_has_a_description(name: str) -> None:
    from regrow.core.config import describe_fields

    rows = describe_fields(VERBS[name].config_class())
    assert [key for key, _, _, text in rows if not text] == []


def test_an_unknown_option_or_verb_exits_with_2(regrow: Command) -> None:
    assert regrow("pretrain", "--lr", "3").returncode == 2
    assert regrow("pretrian").returncode == 2


def test_three_mistakes_are_listed_and_nothing_is_made(regrow: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "data: {shards: shards}\n"
        "optim:\n"
        "  lrr: 1e-3\n"
        "train:\n"
        "  tokens: many\n"
        "model:\n"
        "  layers: 2\n"
        "  hidden_size: 64\n"
        "  heads: 3\n"
        "  head_dim: 16\n"
        "  kv_heads: 2\n"
    )
    done = regrow("pretrain", "--config", "bad.yaml", "--run", "out")
    assert done.returncode == 2
    assert "bad.yaml:3: optim.lrr: unknown key, did you mean lr?" in done.stderr
    assert "bad.yaml:5: train.tokens: 'many'" in done.stderr
    assert "bad.yaml:6: model: kv_heads 2 does not divide heads 3" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_bare_argument_too_many(regrow: Command) -> None:
    done = regrow("pretrain", "runs/x")
    assert done.returncode == 2
    assert "key=value" in done.stderr


def test_after_two_dashes_nothing_is_an_override(regrow: Command) -> None:
    done = regrow("tokenizer", "--dry-run", "--", "a=b")
    assert done.returncode == 2
    assert "a=b" in done.stderr
    assert "unknown key" not in done.stderr


def test_plan_prints_the_contract_keys(regrow: Command) -> None:
    done = regrow("plan", "preset=minitron-4b", "--json")
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["parameters"] == 4_190_509_056
    assert figures["non_embedding_parameters"] == 2_617_645_056
    assert {"pattern", "flops_per_token", "kv_bytes_per_token", "state_bytes_per_sequence"} <= set(
        figures
    )
    text = regrow("plan", "layers=2", "hidden_size=64", "heads=4", "vocab_size=100").stdout
    assert "non_embedding_parameters" in text


def test_a_missing_run_is_an_input_error(regrow: Command) -> None:
    for words in (("runs", "show", "nowhere"), ("tree", "nowhere"), ("runs", "list", "nowhere")):
        done = regrow(*words)
        assert done.returncode == 2, words
        assert "nowhere" in done.stderr


def test_config_show_gives_yaml_that_can_be_run_again(regrow: Command, tmp_path: Path) -> None:
    words = ("data.shards=s", "train.tokens=1e6", "model.layers=2", "model.hidden_size=64")
    first = regrow("config", "show", "pretrain", *words)
    assert first.returncode == 0, first.stderr
    (tmp_path / "again.yaml").write_text(first.stdout)
    again = regrow("config", "show", "pretrain", "--config", "again.yaml")
    assert again.stdout == first.stdout


def test_the_config_of_a_run_folder_runs_again_but_only_with_its_verb(
    regrow: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("verb: curate run\nseed: 3\n")
    done = regrow("config", "show", "curate run", "--config", "config.yaml")
    assert "seed: 3" in done.stdout
    done = regrow("config", "show", "tokenizer", "--config", "config.yaml", "documents=x")
    assert done.returncode == 2
    assert "settings of curate run, not of tokenizer" in done.stderr
    done = regrow("config", "show", "curate", "run", "--config", "config.yaml")
    assert "seed: 3" in done.stdout
    done = regrow("config", "show", "curate")
    assert "did you mean curate run or curate" in done.stderr


def test_a_group_lists_its_verbs_and_says_what_was_meant(regrow: Command) -> None:
    done = regrow("curate", "--help")
    assert "  run " in done.stdout
    assert "  annotate " in done.stdout
    for word, meant in (("seed=1", "seed=1"), ("corpus.yaml", "--config corpus.yaml")):
        done = regrow("curate", word)
        assert done.returncode == 2
        assert f"did you mean: regrow curate run {meant}?" in done.stderr
    done = regrow("curate", "anotate")
    assert done.returncode == 2
    assert "did you mean annotate?" in done.stderr
