"""Our decoders in lm-eval, beside its own Hugging Face model, and our tasks beside its tasks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

lm_eval = pytest.importorskip("lm_eval", reason="the extra [eval] is not installed")

from regrow.core.errors import ConfigError, InputError  # noqa: E402
from regrow.eval.harness import respond  # noqa: E402
from regrow.eval.lm import LanguageModel  # noqa: E402
from regrow.eval.lm_eval_seam import RegrowLM  # noqa: E402
from regrow.eval.task import Choice, ChoiceTask, Item, TaskSettings  # noqa: E402
from regrow.io.tokenizer import Tokenizer  # noqa: E402
from tests.compress.makers import save_model  # noqa: E402

WORDS = ["the", "tree", "grows", "slowly", "and", "it", "is", "tall", "def", "return", "import"]


def phrase(start: int, length: int) -> str:
    return " ".join(WORDS[(start * 7 + i * (start + 3)) % len(WORDS)] for i in range(length))


# As HellaSwag's rows: a context, four endings. As PIQA's: a goal, two solutions.
ENDINGS: list[dict[str, Any]] = [
    {
        "query": f"Gardening: {phrase(i, 5 + i % 4)}. the tree",
        "choices": [phrase(4 * i + k + 1, 2 + (i + k) % 5) for k in range(4)],
        "gold": i % 4,
    }
    for i in range(12)
]
GOALS: list[dict[str, Any]] = [
    {
        "goal": phrase(i + 2, 6),
        "sols": [phrase(i + 5, 3 + i % 3), phrase(i + 9, 4)],
        "label": i % 2,
    }
    for i in range(12)
]


class Endings(ChoiceTask):
    name = "endings"

    def items(self, settings: TaskSettings) -> list[Item]:
        return [
            Choice(
                id=str(index),
                options=tuple((row["query"], f" {text}") for text in row["choices"]),
                answer=row["gold"],
            )
            for index, row in enumerate(ENDINGS)
        ]


class Goals(ChoiceTask):
    name = "goals"

    def items(self, settings: TaskSettings) -> list[Item]:
        return [
            Choice(
                id=str(index),
                options=tuple((f"Question: {r['goal']}\nAnswer:", f" {s}") for s in r["sols"]),
                answer=r["label"],
            )
            for index, r in enumerate(GOALS)
        ]


def lm_eval_task(name: str, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """A task of lm-eval's own over local rows, with its prompts as its files for that set say."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    config = {
        "task": name,
        "test_split": "test",
        "output_type": "multiple_choice",
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        **settings,
    }
    return ConfigurableTask(config=config)


TASKS = {
    "endings": (
        Endings,
        ENDINGS,
        {"doc_to_text": "{{query}}", "doc_to_target": "{{gold}}", "doc_to_choice": "choices"},
    ),
    "goals": (
        Goals,
        GOALS,
        {
            "doc_to_text": "Question: {{goal}}\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": "{{sols}}",
        },
    ),
}


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seam") / "model"
    save_model(folder, tokenizer, max_positions=128)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> RegrowLM:
    return RegrowLM.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    pytest.importorskip("accelerate", reason="lm-eval's Hugging Face model needs accelerate")
    from lm_eval.models.huggingface import HFLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, index) for index, one in enumerate(arguments)]


PAIRS = [
    *((row["query"], f" {text}") for row in ENDINGS for text in row["choices"]),
    *((f"Question: {row['goal']}\nAnswer:", f" {text}") for row in GOALS for text in row["sols"]),
    ("", "the tree grows"),
    ("the tree ", "grows"),
    (phrase(1, 90), " and it is tall"),
]


def test_log_likelihoods_are_those_of_lm_evals_model(ours: RegrowLM, theirs: Any) -> None:
    requests = instances("loglikelihood", PAIRS)
    found = ours.loglikelihood(requests)
    wanted = theirs.loglikelihood(requests, disable_tqdm=True)
    assert len(theirs.tok_encode(PAIRS[-1][0])) > 128  # one is cut
    for one, other in zip(found, wanted, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3)
        assert one[1] == other[1]
    mine, stock = ([total for total, _ in scores] for scores in (found, wanted))
    for at in range(0, 4 * len(ENDINGS), 4):
        assert mine.index(max(mine[at : at + 4])) == stock.index(max(stock[at : at + 4]))


def test_whole_texts_are_those_of_lm_evals_model(ours: RegrowLM, theirs: Any) -> None:
    texts = ["the tree", phrase(2, 20), phrase(3, 100), phrase(5, 300)]
    requests = instances("loglikelihood_rolling", [(text,) for text in texts])
    found = ours.loglikelihood_rolling(requests)
    wanted = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(wanted, abs=2e-3)


def test_continuations_are_those_of_lm_evals_model(ours: RegrowLM, theirs: Any) -> None:
    settings = {"until": ["\n", "zz"], "max_gen_toks": 12, "do_sample": False}
    prompts = ["the tree", "def x", phrase(1, 90), "it"]
    requests = instances("generate_until", [(text, settings) for text in prompts])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = theirs.generate_until(requests, disable_tqdm=True)
    assert ours.generate_until(requests) == wanted
    with pytest.raises(ConfigError, match="sampling"):
        ours.generate_until(instances("generate_until", [("a", {"do_sample": True})]))


def test_our_harness_agrees_with_lm_evals(ours: RegrowLM, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    # To look at the machine, and at the thousands of tasks that it has, takes it half a minute.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    tasks = [lm_eval_task(name, rows, **settings) for name, (_, rows, settings) in TASKS.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = lm_eval.simple_evaluate(
            model=ours,
            tasks=tasks,
            task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
        )
    model = LanguageModel(ours.inner.model, ours.inner.tokenizer)
    for name, (kind, _, _) in TASKS.items():
        mine = kind()
        items = mine.items(TaskSettings())
        responses = respond(model, items)
        samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
        assert len(samples) == len(items) == 12
        for sample, item, response in zip(samples, items, responses, strict=True):
            assert isinstance(item, Choice)
            assert tuple(sample_pairs(sample)) == item.options
            wanted = [float(pair[0][0]) for pair in sample["resps"]]
            found = [score.log_likelihood for score in response.scores]
            assert found == pytest.approx(wanted, abs=1e-3)
            assert found.index(max(found)) == wanted.index(max(wanted))
        figures = [mine.metrics(i, r) for i, r in zip(items, responses, strict=True)]
        whole = mine.aggregate(items, figures)
        for metric in ("acc", "acc_norm"):
            assert whole[metric] == pytest.approx(result["results"][name][f"{metric},none"])
        assert 0 < whole["acc"] < 1


def sample_pairs(sample: dict[str, Any]) -> list[tuple[str, str]]:
    """The (context, continuation) pairs that lm-eval asked for."""
    asked = sample["arguments"]
    if isinstance(asked, dict):
        return [(one["arg_0"], one["arg_1"]) for one in asked.values()]
    return [(one[0], one[1]) for one in asked]


def test_it_is_registered_by_name(folder: Path) -> None:
    from lm_eval.api.registry import get_model

    made = get_model("regrow").create_from_arg_obj({"pretrained": str(folder)}, {"device": "cpu"})
    assert isinstance(made, RegrowLM)
    with pytest.raises(InputError, match="nowhere"):
        RegrowLM.load("nowhere")
