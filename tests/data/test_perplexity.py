"""The step perplexity: what it learns from, what it drops, and whose model it asks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from regrow.core.errors import ConfigError, InputError
from regrow.data import engine
from regrow.data.config import CurateConfig
from regrow.data.example_texts import fixed_sample, texts_digest, texts_in
from regrow.data.perplexity import BuiltIn
from regrow.data.steps.perplexity import Perplexity, highest_kept

_NOUNS = ("river", "boat", "house", "lantern", "tree", "road", "garden", "letter", "window")
_VERBS = ("holds", "sees", "keeps", "finds", "leaves", "meets", "passes", "carries")


def sentences(seed: int, count: int) -> str:
    """Text of a small grammar."""
    rng = np.random.default_rng(seed)
    pick = lambda words: str(rng.choice(words))  # noqa: E731
    return " ".join(f"The {pick(_NOUNS)} {pick(_VERBS)} the {pick(_NOUNS)}." for _ in range(count))


def scrambled(seed: int, count: int) -> str:
    """Letters of that grammar in no order."""
    letters = list(sentences(seed, count))
    np.random.default_rng(seed).shuffle(letters)
    return "".join(letters)


def configured(steps: tuple[str, ...] = ("perplexity", "split"), **settings: Any) -> CurateConfig:
    """Settings as they come from a file."""
    text = json.dumps({"steps": steps, "perplexity": settings}, default=str)
    return CurateConfig.model_validate_json(text)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good text: a file of text, and one of records."""
    root = tmp_path_factory.mktemp("target")
    (root / "a.txt").write_text(sentences(1, 400))
    lines = [json.dumps({"text": sentences(seed, 40)}) for seed in range(2, 12)]
    (root / "b.jsonl").write_text("\n".join(lines))
    return root


def rows(good: int = 30, bad: int = 3, **columns: str) -> list[dict[str, Any]]:
    """Good documents and scrambled ones, of one source."""
    texts = {f"good{i:02d}": sentences(100 + i, 12) for i in range(good)}
    texts |= {f"bad{i}": scrambled(200 + i, 12) for i in range(bad)}
    base = {"kind": "prose", "source": "web", "language": "en"}
    return [{"id": id, "text": text, **base, **columns} for id, text in texts.items()]


def run(table: list[dict[str, Any]], folder: Path, **settings: Any) -> Any:
    """Verdict by id, scores by id, exhibits, the step."""
    step = Perplexity(configured(**settings))
    columns = {name: [one[name] for one in table] for name in ("id", *step.reads())}
    folder.mkdir()
    scores = engine.collected(step.score(engine.from_columns(columns), folder))
    verdict = {r["id"]: (r["reason"], r["value"]) for r in engine.rows(step.judge(scores, folder))}
    return verdict, {r["id"]: r for r in engine.rows(scores)}, step.exhibits(scores, folder), step


def test_strange_documents_go_by_share_and_by_bound(target: Path, tmp_path: Path) -> None:
    given = {"target": {"files": [target]}}
    verdict, scores, shown, step = run(rows(), tmp_path / "a", **given)
    dropped = {id for id, (reason, _) in verdict.items() if reason}
    assert dropped == {"bad0", "bad1", "bad2"}  # a tenth of 33
    assert verdict["bad0"] == ("ppl in the highest 10 %", scores["bad0"]["ppl"])
    assert step.per_document
    assert shown[0]["rows"][0][:2] == ["web, en", 33]
    assert shown[0]["rows"][0][-1] == 3
    (histogram,) = (one for one in shown if one["kind"] == "histogram")
    assert sum(histogram["counts"]) == 33
    good = max(s["ppl"] for id, s in scores.items() if id.startswith("good"))
    bad = min(s["ppl"] for id, s in scores.items() if id.startswith("bad"))
    assert bad > 5 * good
    verdict, _, _, _ = run(rows(), tmp_path / "b", max_ppl=(good + bad) / 2, **given)
    assert {id for id, (reason, _) in verdict.items() if reason} == dropped
    assert verdict["bad0"][0] == f"ppl above {(good + bad) / 2:g}"
    verdict, _, _, _ = run(rows(), tmp_path / "c", min_ppl=bad, drop_top=0, **given)
    assert sum(reason == f"ppl below {bad:g}" for reason, _ in verdict.values()) == 30


def test_each_source_and_language_has_its_own_share(target: Path, tmp_path: Path) -> None:
    table = rows(10, 0)
    table += [one | {"id": "b" + one["id"], "source": "books"} for one in rows(0, 10)]
    table += [one | {"id": "c" + one["id"], "language": "de"} for one in rows(5, 5)]
    verdict, scores, _, _ = run(table, tmp_path / "a", target={"files": [target]}, drop_top=0.2)
    groups = [scores[id]["ppl_group"] for id, (reason, _) in verdict.items() if reason]
    assert sorted(groups) == ["books, en"] * 2 + ["web, de"] * 2 + ["web, en"] * 2


def test_code_is_left_alone_unless_asked(target: Path, tmp_path: Path) -> None:
    table = [one | {"kind": "code"} for one in rows(2, 2)]
    given = {"target": {"files": [target]}, "max_ppl": 2}
    verdict, scores, _, _ = run(table, tmp_path / "a", **given)
    assert {reason for reason, _ in verdict.values()} == {None}
    assert {one["ppl"] for one in scores.values()} == {None}
    verdict, _, _, _ = run(table, tmp_path / "b", code=True, **given)
    assert {reason for reason, _ in verdict.values()} == {"ppl above 2"}


def test_a_document_is_asked_of_a_model_that_has_not_seen_it(tmp_path: Path) -> None:
    table = rows(40, 0) + [one | {"source": "wiki"} for one in rows(0, 30)]
    where = "source = 'wiki' AND kind = 'prose'"
    verdict, scores, _, step = run(table, tmp_path / "a", target={"where": where}, drop_top=0.1)
    assert not step.per_document
    assert sum(reason is not None for reason, _ in verdict.values()) == 7
    model = BuiltIn.load(tmp_path / "a")
    assert len(model.models) == 2
    text = next(one["text"] for one in table if one["source"] == "wiki")
    ids = model.tokenizer.encode(text)
    knows, does_not = sorted(m.nats_per_token(ids) for m in model.models)
    id = next(one["id"] for one in table if one["source"] == "wiki")
    assert scores[id]["ppl"] == pytest.approx(math.exp(does_not), rel=1e-12)
    assert does_not > knows + 1


def test_the_figure_of_a_document_depends_on_it_alone(target: Path, tmp_path: Path) -> None:
    given = {"target": {"files": [target]}}
    _, together, _, _ = run(rows(), tmp_path / "a", **given)
    _, alone, _, _ = run(rows(1, 1), tmp_path / "b", **given)
    assert {id: together[id]["ppl"] for id in alone} == {id: x["ppl"] for id, x in alone.items()}


def test_key_follows_the_texts_and_not_the_files(target: Path, tmp_path: Path) -> None:
    def key(**settings: Any) -> Any:
        return Perplexity(configured(**settings)).key()

    first = key(target={"files": [target]})
    for number, text in enumerate(texts_in([target], "target")):
        (tmp_path / f"{9 - number % 10}-{number}.txt").write_text(text)
    assert key(target={"files": [tmp_path]}) == first
    assert key(target={"files": [target]}, drop_top=0.5, min_ppl=3) == first
    assert key(target={"files": [target]}, order=2) != first
    (tmp_path / "more.txt").write_text(sentences(77, 30))
    assert key(target={"files": [tmp_path]}) != first


def test_fixed_sample_is_a_bounded_set_whatever_the_order() -> None:
    texts = [sentences(seed, 3) for seed in range(300)]
    whole = fixed_sample(texts, 10_000)
    assert fixed_sample(texts[::-1] + texts, 10_000) == whole
    assert 9_000 < sum(map(len, whole)) <= 10_000
    assert set(fixed_sample(texts, 10**9)) == set(texts)
    assert texts_digest(whole) != texts_digest(whole[1:])
    assert len(fixed_sample(["x" * 50], 10)) == 1


def test_at_most_the_share_is_dropped() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 7, 10, 99):
        values = rng.permutation(np.arange(count, dtype=float))
        for share in (0.0, 0.1, 0.3, 0.99):
            assert np.count_nonzero(values > highest_kept(values, share)) == int(
                share * count + 1e-9
            )
    assert highest_kept(np.ones(10), 0.5) == 1.0  # equal ones stay together


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": {"files": ["a"], "where": "x = 1"}}, "set one of them"),
        ({"max_ppl": 9, "drop_top": 0.1}, "set one of them"),
        ({"max_ppl": 9, "min_ppl": 10}, "min_ppl: 10 is not below max_ppl 9"),
        ({"drop_top": 0}, "drops nothing"),
        ({"model": "a.arpa", "order": 2}, "order: has no effect with model"),
        ({"model": "a.txt"}, "ends in none of .arpa"),
        ({"pieces": "a.model"}, "has no effect without model"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        configured(**settings)
    assert message in str(raised.value)


def test_what_is_missing_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set perplexity\.target\.files"):
        Perplexity(configured())
    with pytest.raises(InputError, match=r"perplexity\.target\.files: .*nowhere"):
        Perplexity(configured(target={"files": [tmp_path / "nowhere"]}))
    with pytest.raises(ConfigError, match=r"perplexity\.target\.where: .* value is missing"):
        Perplexity(configured(target={"where": "source = = 'a'"}))
    with pytest.raises(ConfigError, match="reads no column"):
        Perplexity(configured(target={"where": "1 = 1"}))
    step = Perplexity(configured(target={"where": "quality = 'col(x)' AND toxicity < 0.3"}))
    assert step.reads() == ("text", "kind", "source", "language", "quality", "toxicity")
    told = configured(("language", "perplexity", "split"), target={"where": "id = 'x'"})
    assert Perplexity(told).reads() == ("text", "kind", "source", "language_id")


def test_too_small_a_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One line.")
    with pytest.raises(InputError, match="name more text"):
        run(rows(2, 0), tmp_path / "x", target={"files": [tmp_path]})
    with pytest.raises(InputError, match="name more text"):
        run(rows(2, 0), tmp_path / "y", target={"where": "source = 'nothing'"})


_ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.5
-0.9\t</s>
-0.6\tthe\t-0.3
-0.8\tcat\t-0.2

\\2-grams:
-0.2\t<s> the
-0.4\tthe cat
-0.1\tcat </s>

\\end\\
"""


def test_kenlm_models_are_asked(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="needs the extra [kenlm]")
    (tmp_path / "small.arpa").write_text(_ARPA)
    table = rows(1, 0)[:1]
    table[0]["text"] = "the cat\n\nthe dog cat"
    settings = {"model": tmp_path / "small.arpa", "max_ppl": 2}
    verdict, scores, _, step = run(table, tmp_path / "x", **settings)
    # The first line by its bigrams; the second backs off at "dog", at "cat", and not after it.
    logs = (-0.2 - 0.4 - 0.1) + (-0.2 + (-0.3 - 1.0) - 0.8 - 0.1)
    expected = 10 ** (-logs / 7)
    assert scores["good00"]["ppl"] == pytest.approx(expected, rel=1e-5)
    assert verdict["good00"][0] == "ppl above 2"
    assert step.per_document
    (tmp_path / "bad.arpa").write_text("no model")
    with pytest.raises(InputError, match="is not a KenLM model"):
        Perplexity(configured(model=tmp_path / "bad.arpa"))
    with pytest.raises(InputError, match="does not exist"):
        Perplexity(configured(model=tmp_path / "none.arpa"))


def test_kenlm_missing_is_a_setting_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "small.arpa").write_text(_ARPA)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigError, match=r"pip install 'regrow\[kenlm\]'"):
        Perplexity(configured(model=tmp_path / "small.arpa"))
