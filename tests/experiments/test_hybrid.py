"""The hybrid experiment still runs: every part at a size of seconds, and its reading of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.hybrid import arms, decode, models, report, run, sources
from experiments.hybrid.training import Batch, Stage, train

from regrow.eval.recall import IGNORED, AssociativeRecall
from regrow.model.decoder import Decoder
from regrow.model.shapes import non_embedding_parameters


def _result(part: str, model: str, lr: float, seed: int, **figures: Any) -> dict[str, Any]:
    task = {"A": "recall", "D": "text"}[part]
    arm = arms.Arm(part, task, model, models.STATE, lr, seed)
    return {
        "name": arm.name,
        "part": part,
        "task": task,
        "model": model,
        "state": models.STATE,
        "lr": lr,
        "seed": seed,
        "steps_to_95": None,
        **figures,
    }


def _recall(model: str, lr: float, seed: int, value: float) -> dict[str, Any]:
    return _result("A", model, lr, seed, accuracy={str(n): value for n in arms.RECALL_SIZES})


@pytest.mark.parametrize("vocab", [36, 256])
def test_models_are_equal_within_a_tenth(vocab: int) -> None:
    counts = {
        (model, state): non_embedding_parameters(models.shape(model, vocab, state))
        for model, state in report.ROWS
    }
    assert max(counts.values()) < 1.02 * min(counts.values())
    for model, state in report.ROWS:
        built = models.build(models.shape(model, vocab, state), 0)
        total = sum(p.numel() for p in built.parameters()) - 2 * vocab * models.HIDDEN
        assert total == counts[model, state]


def test_fresh_weights_have_the_stated_spread() -> None:
    model = models.build(models.shape("hybrid", 256), 3)
    assert float(model.embed.weight.detach().std()) == pytest.approx(0.5, rel=0.05)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            wanted = module.in_features**-0.5
            assert float(module.weight.detach().std()) == pytest.approx(wanted, rel=0.06), name
    again = models.build(models.shape("hybrid", 256), 3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("announced", [False, True])
def test_the_phonebook_counts_the_digits_of_its_answers(announced: bool) -> None:
    characters = {index: c for c, index in sources._TABLE.items()} | {sources.PAD: ""}
    for testing, answers in ((True, 1), (False, 3)):
        batch = sources.Phonebook(announced, testing).batch(0, 0, 3, 5)
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            text = "".join(characters[token] for token in tokens)
            counted = [place for place, target in enumerate(targets) if target != IGNORED]
            assert len(counted) == 4 * answers
            listed = dict(
                line.split(": ") for line in text.split("\n\n")[int(announced)].split("\n")
            )
            assert len(listed) == 5
            for first in counted[::4]:
                number = "".join(characters[targets[first + k]] for k in range(4))
                name = text[: first - 1].split("\n")[-1].rstrip(":")
                assert text[first] == " ", "the space before the number predicts its first digit"
                assert listed[name] == number
            assert text.startswith(f"Look up {name}.") == announced


class _Says:
    """A model that says the digits it was given, whatever it reads."""

    def __init__(self, digits: list[int], first: int) -> None:
        self.digits, self.first, self.seen = digits, first, []

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(tokens.clone())
        return tokens[..., None].expand(*tokens.shape, 10).float()

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        digit = self.digits[len(self.seen) - 1]
        return torch.nn.functional.one_hot(torch.full(hidden.shape[:1], digit), 10).float()


def test_dictated_answers_are_read_from_the_models_own_digits() -> None:
    targets = torch.full((2, 6), IGNORED)
    targets[0, 1:4], targets[1, 3:6] = torch.tensor([4, 8, 2]), torch.tensor([4, 8, 9])
    model = _Says([4, 8, 2], 1)
    exact, digits = arms.dictate(model, Batch(torch.zeros(2, 6).long(), targets))  # type: ignore[arg-type]
    assert (exact, digits) == (0.5, pytest.approx(5 / 6))
    assert model.seen[-1][0].tolist() == [0, 0, 4, 8, 0, 0], "it read what it had said"
    assert model.seen[-1][1].tolist() == [0, 0, 0, 0, 4, 8]


def test_a_stage_ends_when_it_is_solved_or_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = models.build(models.shape("transformer", sources.Recall.vocab_size), 0)
    stages = (Stage((1,), 0.9), Stage((2,), 0.5), Stage((2, 3)))
    recipe = arms.Recipe(stages, 100, 2)
    monkeypatch.setattr("experiments.hybrid.training.SOLVED", 0.0)
    took = train("fast", model, sources.Recall(), recipe, 1e-3, 0, check_sequences=2)
    assert took.stage_steps == [0, 25, 50]
    monkeypatch.setattr("experiments.hybrid.training.SOLVED", 2.0)
    took = train("slow", model, sources.Recall(), recipe, 1e-3, 0, check_sequences=2)
    assert took.stage_steps == [0, 100]


def test_an_arm_stops_when_it_has_been_perfect_for_a_while() -> None:
    model = models.build(models.shape("transformer", sources.Recall.vocab_size), 0)
    found = iter([1.0, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    recipe = arms.Recipe((Stage((1,)),), 500, 2)
    took = train("done", model, sources.Recall(), recipe, 1e-3, 0, lambda step: next(found))
    assert took.steps == 7 * 25


def test_all_models_see_the_same_sequences() -> None:
    first = sources.Recall().batch(7, 48, 4, 3)
    assert torch.equal(first.tokens, torch.from_numpy(AssociativeRecall(3).batch(7, 48, 4).tokens))


def test_the_smaller_of_equally_good_learning_rates_goes_on() -> None:
    grid = [_recall("hybrid", lr, 0, v) for lr, v in ((1e-3, 0.999), (2e-3, 1.0), (4e-3, 0.5))]
    group = ("A", "recall", "hybrid", models.STATE)
    assert arms.best_lr(grid[:2], group) is None, "the grid is not whole"
    assert arms.best_lr(grid, group) == 1e-3
    assert arms.best_lr(grid, group, larger=True) == 2e-3
    worse = [grid[0] | {"accuracy": {"16": 0.98}}, *grid[1:]]
    assert arms.best_lr(worse, group) == 2e-3
    losses = [_result("D", "hybrid", lr, 0, held_out_loss=1 / lr) for lr in arms.TEXT_RATES]
    assert arms.best_lr(losses, ("D", "text", "hybrid", models.STATE)) == arms.TEXT_RATES[-1]
    assert arms.best_lr(losses[:3], ("D", "text", "hybrid", models.STATE)) is None


def test_what_is_due_follows_from_what_is_done() -> None:
    first = arms.due([], "AB", 3)
    assert len(first) == 9, "the grid of three models; B waits for their rates"
    done = [
        _recall(model, lr, 0, 1.0 if lr == 2e-3 else 0.2)
        for model in arms.MODELS
        for lr in arms.LEARNING_RATES
    ]
    left = arms.due(done, "AB", 3)
    assert {arm.lr for arm in left} == {2e-3}
    assert sum(arm.part == "A" for arm in left) == 3 * 2 + 3, (
        "two seeds more, three with wide state"
    )
    assert sum(arm.part == "B" for arm in left) == 3 * 2 * 3
    assert [arm.seed for arm in left if arm.part == "B"] == [0] * 6 + [1] * 6 + [2] * 6
    assert arms.due(done, "A", 1, grid_seeds=2, models=["hybrid"]) == [
        arms.Arm("A", "recall", "hybrid", models.STATE, lr, 1) for lr in arms.LEARNING_RATES
    ]


def test_a_transformer_on_its_plateau_is_never_a_win() -> None:
    rows = [_recall("hybrid", 1e-3, s, 1.0) for s in range(3)]
    rows += [_recall("mamba2", 1e-3, s, 0.3 - s / 100) for s in range(3)]
    rows += [r | {"state": models.WIDE_STATE} for r in rows[3:]]
    stuck = [*rows, *(_recall("transformer", 1e-3, s, v) for s, v in enumerate((1.0, 1.0, 0.2)))]
    last = report._recall_claims(stuck)[-1]
    assert last[-1] == "not converged"
    solved = [*rows, *(_recall("transformer", 1e-3, s, 0.99) for s in range(3))]
    assert report._recall_claims(solved)[-1][-1] == "yes"


def test_planned_bytes_are_counted_ones() -> None:
    for found in decode.measure([24, 40], new_tokens=2, repeats=1, hidden=64):
        assert found["cache_bytes"] == found["planned_bytes"] > 0
        assert found["milliseconds"] > 0
    config = decode.shape("mamba2", 64)
    small, large = (Decoder(config).new_cache(1, capacity) for capacity in (8, 800))
    assert decode.live_bytes(small) == decode.live_bytes(large)


def test_the_whole_experiment_at_its_smallest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    command = ["--steps", "0.002", "--tests", "3", "--seeds", "1", "--contexts", "16"]
    command += ["--models", "hybrid", "--results", str(results), "--folder", str(tmp_path)]
    threads = torch.get_num_threads()
    try:
        run.main(["--parts", "A", *command])
        lines = results.read_text().splitlines()
        # A kill in the middle of a line costs that line's arm.
        results.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:50])
        capsys.readouterr()
        run.main(command)
        again = capsys.readouterr().out
        assert f"{json.loads(lines[-1])['name']} " in again
        assert not any(f"{json.loads(line)['name']} " in again for line in lines[:-1])
        run.main(command)
        assert capsys.readouterr().out == "", "nothing is done twice"
    finally:
        torch.set_num_threads(threads)
    names = [record["name"] for record in run.read(results)]
    assert len(names) == len(set(names)) == 3 + 2 + 1 + 5 + 3, "A, B, C, D of one model; E of three"
    page = (tmp_path / "README.md").read_text()
    for name in ("recall", "rates", "phonebook", "copying", "text", "decode"):
        assert f"<!-- {name} -->\n| " in page
    assert (tmp_path / "decode.svg").read_text().startswith("<svg xmlns=")


def test_no_arm_begins_while_the_pause_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = tmp_path / "pause"
    pause.touch()
    monkeypatch.setenv("REGROW_PAUSE_FILE", str(pause))
    monkeypatch.setattr("time.sleep", lambda seconds: pause.unlink())
    run.wait()
    assert "waiting for" in capsys.readouterr().out
    assert not pause.exists()
