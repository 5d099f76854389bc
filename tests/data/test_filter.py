"""The step filter: which rule drops what, and what it does where it cannot tell."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from regrow.core.errors import InputError
from regrow.data import engine
from regrow.data.comments import COMMENT_LANGUAGES, comment_share
from regrow.data.config import CurateConfig
from regrow.data.filter_rules import PRESETS, RULES
from regrow.data.sources.checkout import LANGUAGE_OF
from regrow.data.steps.filter import Filter

_SENTENCES = (
    "The river runs down to the sea, and with it go all of the boats.",
    "Nobody that we have met would ever be afraid of such weather.",
    "A man with a lantern came to the door and asked for bread.",
    "It took them most of a week to have the roof mended properly.",
    "There was smoke over the hills, but no one could say from where.",
)
GOOD = "\n".join(_SENTENCES)
PYTHON = '"""Adds."""\n\n\ndef add(first, second):\n    # carefully\n' + "    first += 1\n" * 8


def row(id: str, text: str, **columns: str) -> dict[str, str]:
    return {"id": id, "text": text, "kind": "prose", "language": "en", **columns}


def configured(steps: tuple[str, ...] = ("filter", "split"), **settings: Any) -> CurateConfig:
    """Settings as they come from a file."""
    text = json.dumps({"steps": steps, "filter": settings}, default=str)
    return CurateConfig.model_validate_json(text)


def run(
    rows: list[dict[str, Any]], settings: dict[str, Any] | None = None, told: bool = False
) -> tuple[dict[str, tuple[str | None, float | None]], list[dict[str, Any]], dict[str, Any]]:
    """Verdict by id, exhibits, and scores by id."""
    steps = ("language", "filter", "split") if told else ("filter", "split")
    step = Filter(configured(steps, **(settings or {})))
    columns = {name: [one.get(name) for one in rows] for name in ("id", *step.reads())}
    scores = engine.collected(step.score(engine.from_columns(columns), Path()))
    verdict = {r["id"]: (r["reason"], r["value"]) for r in engine.rows(step.judge(scores, Path()))}
    return verdict, step.exhibits(scores, Path()), {r["id"]: r for r in engine.rows(scores)}


def test_good_text_stays_and_bad_text_goes_with_rule_and_value() -> None:
    rows = [
        row("good", GOOD),
        row("short", "The cat sat on the mat."),
        row("repeated", "\n".join([GOOD] * 3)),
        row("list", "\n".join(f"Item{x} Offer{x} Price{x}." for x in "abcdefghijklmnopqrstuvw")),
        row("digits", GOOD + " 31415926535 8979323846" * 15),
    ]
    verdict, _, _ = run(rows)
    assert verdict["good"] == (None, None)
    assert verdict["short"] == ("words below 50", 6.0)
    assert verdict["repeated"] == ("unique_lines below 0.7", pytest.approx(1 / 3))
    assert verdict["list"] == ("common_words below 2", 0.0)
    reason, value = verdict["digits"]
    assert reason == "digits above 0.15"
    assert value is not None
    assert value > 0.15


def test_first_broken_rule_is_the_reason_and_bounds_themselves_stay() -> None:
    settings = {"rules": {"words": [6, 6], "mean_word_length": [None, 1]}}
    verdict, _, scores = run([row("a", "one two three"), row("b", "x y z u v w")], settings)
    assert verdict["a"] == ("words below 6", 3.0)  # it breaks mean_word_length as well
    assert scores["b"]["words"] == 6
    assert verdict["b"][0] not in ("words below 6", "words above 6")


def test_code_takes_the_preset_code() -> None:
    rows = [
        row("python", PYTHON, kind="code", language="python"),
        row("short", "# x\nx = 1\n", kind="code", language="python"),
        row("bare", "value = one\n" * 20, kind="code", language="python"),
        row("numbers", "# n\n" + "1.25, 3.5, 8.75,\n" * 20, kind="code", language="python"),
    ]
    verdict, _, scores = run(rows)
    assert {id: reason for id, (reason, _) in verdict.items()} == {
        "python": None,
        "short": "code_lines below 10",
        "bare": "code_comments below 0.01",
        "numbers": "code_letters below 0.25",
    }
    assert scores["python"]["words"] is None
    assert scores["python"]["filter_kind"] == "code"


def test_presets_differ_in_what_they_drop() -> None:
    words = GOOD.split()
    narrow = "\n".join(" ".join(words[i : i + 4]) + "." for i in range(0, len(words), 4))
    assert run([row("narrow", narrow)])[0]["narrow"] == (None, None)
    assert run([row("narrow", narrow)], {"preset": "gopher"})[0]["narrow"] == (None, None)
    reason, value = run([row("narrow", narrow)], {"preset": "fineweb"})[0]["narrow"]
    assert reason == "short_lines above 0.67"
    assert value == 1.0
    assert set(PRESETS["gopher"]) < set(PRESETS["fineweb"])


def test_rules_are_overridden_by_name() -> None:
    short = [row("short", "The cat sat with the dog and the mouse.")]
    assert run(short, {"rules": {"words": [5, None]}})[0]["short"] == (None, None)
    assert run(short, {"rules": {"words": None}})[0]["short"] == (None, None)
    assert run(short, {"rules": {"words": None, "short_lines": [None, 0.5]}})[0]["short"] == (
        None,
        None,
    )
    reason, _ = run(short, {"rules": {"words": None, "short_lines": [2, None]}})[0]["short"]
    assert reason == "short_lines below 2"


def test_unknown_languages_are_refused_by_name() -> None:
    rows = [row("good", GOOD), row("latin", GOOD, language="la"), row("none", GOOD, language="")]
    with pytest.raises(InputError) as raised:
        run(rows)
    text = str(raised.value)
    assert text.count("\n") == 1  # the rules that lack the same say so once
    assert "common_words, boilerplate_lines: the words of a language are needed" in text
    assert "la (1)" in text
    assert "unknown (1)" in text
    assert "name the language of the source" in text
    assert "filter.rules.common_words=null" in text
    assert "filter.languages.la=" in text
    assert "filter.no_list" in text


def test_unknown_languages_can_be_dropped_skipped_or_taught() -> None:
    rows = [row("good", GOOD), row("latin", GOOD, language="la")]
    verdict, shown, _ = run(rows, {"no_list": "drop"})
    assert verdict["good"] == (None, None)
    assert verdict["latin"] == ("common_words has no list for la", None)
    assert ["common_words", "la", 1] in shown[1]["rows"]
    assert run(rows, {"no_list": "skip"})[0]["latin"] == (None, None)
    off = {"rules": {"common_words": None, "boilerplate_lines": None}}
    assert run(rows, off)[0]["latin"] == (None, None)
    lists = {"la": {"words": ["river", "boats.", "lantern"]}}
    verdict, _, scores = run(rows, {"languages": lists})
    assert verdict["latin"] == (None, None)
    assert scores["latin"]["common_words"] == 3
    lists = {"la": {"words": ["et", "in"]}}
    assert run(rows, {"languages": lists})[0]["latin"] == ("common_words below 2", 0.0)


def test_languages_without_blanks_have_no_words_to_count() -> None:
    with pytest.raises(
        InputError, match=r"words, mean_word_length, .*: words are counted.* zh \(1\)"
    ):
        run([row("chinese", "你好。" * 100, language="zh")])


def test_code_of_unknown_languages_is_refused() -> None:
    rows = [row("x", PYTHON, kind="code", language="brainfog")]
    with pytest.raises(InputError, match=r"code_comments: the marks of comments .*brainfog \(1\)"):
        run(rows)
    assert run(rows, {"rules": {"code_comments": None}})[0]["x"] == (None, None)


@pytest.mark.parametrize(
    ("declared", "told", "used"),
    [
        ("de", "en", "en"),  # what the text says counts
        ("en-GB", "la", "en"),  # unless its words are not known, and the declared one's are
        ("xx", "la", "la"),
        ("en", "zh", "zh"),
        ("en", None, "en"),
    ],
)
def test_which_language_counts(declared: str, told: str | None, used: str) -> None:
    rows = [row("a", GOOD, language=declared) | {"language_id": told}]
    _, _, scores = run(rows, {"no_list": "skip"}, told=True)
    assert scores["a"]["filter_language"] == used
    _, _, scores = run(rows, {"no_list": "skip"})
    assert scores["a"]["filter_language"] == declared.partition("-")[0]


def test_exhibits_count_what_the_judgement_drops() -> None:
    rows = [
        row("good", GOOD),
        row("short", "The cat."),
        row("code", PYTHON, kind="code", language="python"),
    ]
    verdict, shown, _ = run(rows)
    table = {line[0]: line for line in shown[0]["rows"]}
    assert (
        sum(line[3] for line in table.values())
        == sum(r is not None for r, _ in verdict.values())
        == 1
    )
    assert table["words"][3:] == [1, 1, 0.5]
    assert table["words"][2] == "50 to 100000"
    assert table["code_lines"][3:] == [0, 0, 0.0]
    histograms = {
        one["title"].partition(":")[0]: one for one in shown if one["kind"] == "histogram"
    }
    assert set(histograms) == set(table)
    assert sum(histograms["words"]["counts"]) == 2
    assert sum(histograms["code_lines"]["counts"]) == 1
    assert histograms["words"]["thresholds"] == [50, 100_000]


def test_thresholds_and_presets_are_no_part_of_the_key() -> None:
    def key(**settings: Any) -> Any:
        return Filter(configured(**settings)).key()

    assert key() == key(preset="gopher", rules={"words": [3, 9]}, no_list="drop")
    assert key() != key(languages={"la": {"words": ["et", "in"]}})


def test_tokenizer_gives_its_rule(tmp_path: Path) -> None:
    from regrow.io.tokenizer import train_byte_level

    tokenizer = train_byte_level(iter([GOOD]), 300)
    tokenizer.save(tmp_path)
    rows = [row("p", PYTHON, kind="code", language="python"), row("g", GOOD)]
    verdict, _, scores = run(rows, {"tokenizer": str(tmp_path)})
    expected = len(PYTHON) / len(tokenizer.encode(PYTHON))
    assert scores["p"]["characters_per_token"] == pytest.approx(expected)
    assert scores["g"]["characters_per_token"] is None
    assert verdict["p"][0] == "characters_per_token below 2.5"
    assert "characters_per_token" not in run(rows)[2]["p"]
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        Filter(configured(tokenizer=tmp_path / "no"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": {"word": [1, 2]}}, "unknown rule 'word', did you mean words?"),
        ({"rules": {"words": [9, 3]}}, "9 is above 3"),
        ({"rules": {"words": [None, None]}}, "write null"),
        ({"rules": {"short_lines": None}}, "preset prose has no such rule"),
        ({"rules": {"characters_per_token": [1, None]}}, "set tokenizer"),
        ({"rules": dict.fromkeys([*PRESETS["prose"], *PRESETS["code"]][:-1])}, "leave the step"),
        ({"languages": {"LA": {"words": ["et", "in"]}}}, "'LA' is no code"),
        ({"languages": {"la": {"words": ["Et", "in"]}}}, "in lower case"),
        ({"languages": {"la": {"words": ["et", "in in"]}}}, "not one short word"),
        ({"preset": "code"}, "prose"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        configured(**settings)
    assert message in str(raised.value)


def test_the_measuring_function_can_be_sent_to_other_processes() -> None:
    step = Filter(configured())
    again = pickle.loads(pickle.dumps(step._measure))
    assert again.schema().equals(step._measure.schema())
    assert set(again.schema().names) >= set(RULES) - {"characters_per_token"}


@pytest.mark.parametrize(
    ("language", "text", "inside"),
    [
        ("python", "x = 1  # one\n", "# one"),
        ("python", "s = '# none'\n", ""),
        ("python", "def f():\n    '''Doc.'''\n    return '''text'''\n", "    '''Doc.'''"),
        ("python", '"""Never closed', '"""Never closed'),
        ("c", 'char *s = "// none"; /* yes */ // too\n', "/* yes */// too"),
        ("javascript", "let u = `http://x`; // c", "// c"),
        ("shell", "echo ${#x} $# # c", "# c"),
        ("sql", "select '--', 1 -- c\n", "-- c"),
        ("lua", "x = 1 --[[ a\nb ]] y = 2 -- c", "--[[ a\nb ]]-- c"),
        ("html", "<p>a</p><!-- b\nc --><i>", "<!-- b\nc -->"),
        ("tex", "50\\% of % c\n", "% c"),
        ("restructuredtext", ".. note::\n   x\n\n.. hidden\n   too\n\nText", ".. hidden\n   too"),
        ("json", '{"#": "//"}', ""),
    ],
)
def test_comments_are_found_where_they_are(language: str, text: str, inside: str) -> None:
    assert comment_share(text, language) == pytest.approx(len(inside) / len(text))


def test_comments_of_every_language_that_a_checkout_gives() -> None:
    assert set(LANGUAGE_OF.values()) <= set(COMMENT_LANGUAGES)
    assert comment_share("x", "brainfog") is None
    assert comment_share("", "python") == 0
