"""Hugging Face classifiers and language models, against transformers used directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra [classifiers] is missing")

import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from regrow.core.config import load_config
from regrow.core.errors import ConfigError, InputError, RunError
from regrow.data import engine
from regrow.data.attributes import open_classifier
from regrow.data.attributes.prompt import Prompt
from regrow.data.attributes.ranker import Ranker
from regrow.data.attributes.sequence import SequenceClassifier
from regrow.data.attributes.windows import windows
from regrow.data.config import CurateConfig
from regrow.data.steps.attributes import Attributes

TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "",
    " ".join(f"the dog ran {i} times over the mat" for i in range(400)),
    "one two three four five six seven eight nine ten",
]
# What both models are made of.
SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.5,
}


def word_tokenizer(folder: Path, special: bool = True) -> None:
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    inner.train_from_iterator(TEXTS, trainer)
    if special:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "[PAD]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "unk_token": "[UNK]",
            }
        )
    )


def bert(folder: Path, labels: tuple[str, ...] = ("High", "Medium", "Low"), **more: Any) -> Path:
    torch.manual_seed(3)
    config = transformers.BertConfig(
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **SMALL,
        **more,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    word_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("bert"))


def direct(folder: Path, texts: list[str]) -> np.ndarray:
    """transformers' own way: its tokenizer with padding and a mask, logits of windows averaged."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        batch = tokenizer(
            windows(text), padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            rows.append(model(**batch).logits.double().mean(dim=0).numpy())
    return np.stack(rows)


def test_logits_are_transformers(folder: Path) -> None:
    found = open_classifier(folder)
    assert isinstance(found, SequenceClassifier)
    assert found.labels == ("High", "Medium", "Low")
    assert found.id.startswith("bert-")
    expected = direct(folder, TEXTS)
    assert np.ptp(expected, axis=0).min() > 0.1  # the texts are told apart
    np.testing.assert_allclose(found.logits(TEXTS), expected, atol=1e-5)
    chances = found.probabilities(TEXTS)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(
        chances, torch.softmax(torch.tensor(expected), -1).numpy(), atol=1e-5
    )


def test_a_row_depends_on_its_text_alone(folder: Path) -> None:
    found = open_classifier(folder)
    together = found.probabilities(TEXTS)
    for number, text in enumerate(TEXTS):
        np.testing.assert_array_equal(found.probabilities([text])[0], together[number])


def test_the_step_stores_what_it_says(folder: Path, tmp_path: Path) -> None:
    settings = {"steps": ["attributes", "split"], "attributes": {"quality": str(folder)}}
    config = load_config(CurateConfig, base=settings)
    made = Attributes(config)
    table = engine.from_columns({"id": list("abcde"), "text": TEXTS})
    rows = {row["id"]: row for row in engine.rows(made.score(table, tmp_path))}
    expected = torch.softmax(torch.tensor(direct(folder, TEXTS)), -1).numpy()
    for name, chances in zip("abcde", expected, strict=True):
        row = rows[name]
        stored = [row[f"quality_probability_{label}"] for label in ("high", "medium", "low")]
        np.testing.assert_allclose(stored, chances, atol=1e-5)
        assert row["quality"] == ("High", "Medium", "Low")[int(chances.argmax())]


def test_batches_of_a_gpu_give_the_same(folder: Path) -> None:
    found = SequenceClassifier.load(folder)
    alone = found.logits(TEXTS)
    found.rows = 4  # as on a GPU: passes of one shape, filled with padding
    np.testing.assert_allclose(found.logits(TEXTS), alone, atol=1e-5)


def test_classes_that_do_not_exclude_each_other(tmp_path: Path) -> None:
    made = bert(tmp_path, ("toxic", "insult"), problem_type="multi_label_classification")
    found = open_classifier(made)
    expected = torch.sigmoid(torch.tensor(direct(made, TEXTS))).numpy()
    np.testing.assert_allclose(found.probabilities(TEXTS), expected, atol=1e-5)


def test_pickles_and_code_are_never_opened(tmp_path: Path, folder: Path) -> None:
    import shutil

    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin, a format that can run code"):
        open_classifier(pickled)
    code = tmp_path / "code"
    shutil.copytree(folder, code)
    config = json.loads((code / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
    (code / "config.json").write_text(json.dumps(config))
    (code / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(InputError, match="auto_map asks for code"):
        open_classifier(code)


def test_what_does_not_fit_is_told(tmp_path: Path, folder: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer.json"):
        open_classifier(bare)
    headless = tmp_path / "headless"
    transformers.BertModel(transformers.BertConfig.from_pretrained(folder)).save_pretrained(
        headless
    )
    shutil.copy(folder / "tokenizer.json", headless)
    with pytest.raises(InputError, match="lacks weights that BertForSequenceClassification needs"):
        open_classifier(headless)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            open_classifier(folder, "cuda")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(4)
    config = transformers.LlamaConfig(num_key_value_heads=2, max_position_embeddings=96, **SMALL)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer(folder, special=False)
    return folder


def likelihood(folder: Path, prompt: str, name: str) -> float:
    """transformers' own loss over the name's tokens alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = tokenizer(prompt).input_ids
    ids = torch.tensor([tokenizer(f"{prompt} {name}").input_ids])
    labels = ids.clone()
    labels[0, : len(before)] = -100
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels).loss
    return -float(loss) * (ids.shape[1] - len(before))


def test_ranking_is_what_the_document_adds(language_model: Path) -> None:
    ranker = Ranker(language_model)
    prompt = Prompt("the cat ?", {"cat": "a", "dog ran": "b", "seven": "c"})
    texts = ["the dog ran over the mat", "five six"]
    found = np.stack([ranker.probabilities(text, prompt) for text in texts])
    tail = "\n\nthe cat ?\nAnswer:"
    opening = "cat: a.\ndog ran: b.\nseven: c.\n"
    added = [
        [
            likelihood(language_model, f"{opening}{text}{tail}", name)
            - likelihood(language_model, opening + tail, name)
            for name in prompt.classes
        ]
        for text in texts
    ]
    expected = torch.softmax(torch.tensor(added), -1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_long_documents_and_many_definitions_fit(language_model: Path) -> None:
    ranker = Ranker(language_model)
    long = {"cat": "the dog ran over the mat " * 30, "dog": "x"}
    found = ranker.probabilities(TEXTS[3], Prompt("the cat ?", long))
    assert found.sum() == pytest.approx(1)
    with pytest.raises(RunError, match=r"reads 96 tokens at once, too few"):
        ranker.probabilities("the", Prompt("the dog " * 60, {"cat": "a", "dog": "b"}))
