"""Settings: sources and their order, strictness, and every mistake listed with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from regrow.core.config import (
    Config,
    config_hash,
    describe_fields,
    differences,
    is_override,
    load_config,
)
from regrow.core.errors import ConfigError


class AdamW(Config):
    kind: Literal["adamw"] = "adamw"
    """Which optimiser."""
    lr: float = 1e-3
    """Learning rate."""
    beta: float = 0.9
    """First moment's decay."""


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    """Which optimiser."""
    lr: float = 0.1
    """Learning rate."""
    momentum: float = 0.0
    """Share of the last step."""


class Shape(Config):
    heads: int = 4
    """Attention heads."""
    width: int = 128
    """Channels."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class Phase(Config):
    name: str
    """Phase."""
    weights: dict[str, float] = {}
    """Source weights."""


class Job(Config):
    name: str = "job"
    """Name."""
    folder: Path | None = None
    """A folder."""
    flag: bool = False
    """A switch."""
    steps: int = Field(default=10, gt=0)
    """Steps."""
    shape: Shape = Shape()
    """Shape."""
    optim: Annotated[AdamW | Sgd, Field(discriminator="kind")] = AdamW()
    """Optimiser."""
    phases: tuple[Phase, ...] = ()
    """Phases."""


def load(tmp_path: Path, text: str, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return load_config(Job, [path], overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return [line.replace(str(tmp_path), "") for line in caught.value.problems]


def test_later_sources_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("name: a\nsteps: 1\nshape: {heads: 2}\n")
    second.write_text("steps: 2\nshape: {width: 64}\n")
    job = load_config(Job, [first, second], ["shape.heads=8"])
    assert (job.name, job.steps, job.shape.heads, job.shape.width) == ("a", 2, 8, 64)


def test_three_mistakes_are_all_listed_with_line_and_suggestion(tmp_path: Path) -> None:
    text = "name: x\nstpes: 3\noptim:\n  lr: fast\nshape:\n  heads: 3\n"
    found = sorted(problems(tmp_path, text))
    assert len(found) == 3
    assert found[0].startswith("/job.yaml:2: stpes: unknown key, did you mean steps?")
    assert found[1].startswith("/job.yaml:4: optim.lr: 'fast' should be a valid number")
    assert found[2].startswith("/job.yaml:5: shape: width 128 is no multiple of heads 3")


def test_an_unknown_key_does_not_hide_the_impossible_shape_beside_it(tmp_path: Path) -> None:
    found = problems(tmp_path, "shape:\n  heads: 3\n  witdh: 64\n")
    assert any("did you mean width" in line for line in found)
    assert any("no multiple of heads 3" in line for line in found)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("steps: true", "integer"),
        ("steps: 1.5", "integer"),
        ("optim: {lr: .inf}", "finite"),
        ("optim: {lr: .nan}", "finite"),
        ("optim: {lr: '1e-3'}", "number"),
        ("flag: 1", "boolean"),
        ("flag: no", "boolean"),
        ("steps: 0", "greater than 0"),
        ("- a", "mapping"),
    ],
)
def test_values_are_strict(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load(tmp_path, text)


def test_yaml_is_1_2(tmp_path: Path) -> None:
    job = load(tmp_path, "name: no\noptim: {lr: 1e-3}\nsteps: 1e6\nphases: [{name: 'on'}]\n")
    assert job.name == "no"
    assert job.optim.lr == 0.001
    assert job.steps == 1_000_000
    with pytest.raises(ConfigError, match=r"job\.yaml:2"):
        load(tmp_path, "steps: 1\nsteps: 2\n")


def test_a_union_needs_no_kind_and_a_new_kind_drops_the_old_siblings(tmp_path: Path) -> None:
    assert load(tmp_path, "", "optim.lr=0.5").optim == AdamW(lr=0.5)
    assert load(tmp_path, "optim: {kind: adamw, beta: 0.5}", "optim.kind=sgd").optim == Sgd()
    assert problems(tmp_path, "optim: {kind: adam}") != []


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    text = "phases:\n- {name: a, weights: {en: 1}}\n- {name: b}\n"
    job = load(tmp_path, text, "phases.0.weights.en=0.5", "phases.1.name=7", "name=12")
    assert job.phases[0].weights == {"en": 0.5}
    assert (job.phases[1].name, job.name) == ("7", "12")
    with pytest.raises(ConfigError, match="no item 2"):
        load(tmp_path, text, "phases.2.name=c")


def test_a_word_is_an_override_only_by_its_form() -> None:
    assert is_override("a.b=1")
    assert is_override("x=")
    assert not is_override("runs/a=b")
    assert not is_override("A=1")
    assert not is_override("--x=1")


@given(
    st.builds(
        Job,
        name=st.text(),
        steps=st.integers(1, 2**40),
        optim=st.builds(AdamW, lr=st.floats(0, 1e3)) | st.builds(Sgd, momentum=st.floats(-1, 1)),
        phases=st.lists(
            st.builds(Phase, name=st.text(), weights=st.dictionaries(st.text(), st.floats(0, 1)))
        ).map(tuple),
    )
)
def test_dump_then_load_is_the_identity(tmp_path_factory: pytest.TempPathFactory, job: Job) -> None:
    path = tmp_path_factory.mktemp("config") / "job.yaml"
    path.write_text(job.as_yaml(), encoding="utf-8")
    again = load_config(Job, [path])
    assert again == job
    assert config_hash(again) == config_hash(job)


def test_replace_validates_the_whole() -> None:
    assert Shape().replace(width=64).width == 64
    with pytest.raises(ValidationError):
        Shape().replace(heads=3)
    with pytest.raises(ConfigError, match="no setting"):
        Shape().replace(height=3)


def test_differences_name_the_keys() -> None:
    old, new = Job().as_json(), Job(steps=3, shape=Shape(heads=8)).as_json()
    assert differences(old, new) == ["steps: 10 there, 3 now", "shape.heads: 4 there, 8 now"]


class Newer(Job):
    seed: int = 0
    """A setting that a later version added."""
    inner: Shape = Shape(width=64)
    """A group of settings likewise, with defaults of its own."""


@given(
    st.builds(
        Job,
        name=st.sampled_from(["job", "other"]),
        steps=st.sampled_from([10, 11]),
        shape=st.sampled_from([Shape(), Shape(heads=8)]),
        optim=st.sampled_from([AdamW(), AdamW(lr=0.1), Sgd(), Sgd(lr=0.5), AdamW(lr=0.5)]),
        phases=st.sampled_from([(), (Phase(name="a"),), (Phase(name="a", weights={"x": 1.0}),)]),
    ),
    st.data(),
)
def test_hashes_are_equal_for_equal_settings_only_and_new_settings_change_none(
    job: Job, data: st.DataObject
) -> None:
    other = data.draw(st.sampled_from([job, job.replace(steps=12), Job(), Job(optim=Sgd())]))
    assert (config_hash(job) == config_hash(other)) == (job == other)
    newer = Newer.model_validate_json(json.dumps(job.as_json()))
    assert config_hash(newer) == config_hash(job)
    assert config_hash(newer.replace(seed=1)) != config_hash(job)
    # a value that is the class's default, but not the field's, counts
    assert config_hash(newer.replace(inner=Shape())) != config_hash(job)


class Chain(Config):
    ordered: ClassVar[tuple[str, ...]] = ("links",)

    links: dict[str, Phase] = {}
    """Each made from the one before."""
    weights: dict[str, float] = {}
    """In no order."""


def test_the_order_of_a_mapping_counts_where_it_decides() -> None:
    a, b = Phase(name="x"), Phase(name="y")
    one = Chain(links={"a": a, "b": b}, weights={"x": 1.0, "y": 2.0})
    other = Chain(links={"b": b, "a": a}, weights={"x": 1.0, "y": 2.0})
    assert config_hash(one) != config_hash(other)
    assert one.differences_from(other.as_json()) == [
        'order of links: ["b", "a"] there, ["a", "b"] now'
    ]
    same = Chain(links={"a": a, "b": b}, weights={"y": 2.0, "x": 1.0})
    assert config_hash(one) == config_hash(same)
    assert one.differences_from(same.as_json()) == []
    gone = {**other.as_json(), "removed": 1}
    assert one.differences_from(gone)[0].startswith("removed: 1 there")


def test_what_an_older_version_wrote_is_compared_with_todays_defaults() -> None:
    old = Job(steps=3).as_json()
    assert Newer(steps=3).differences_from(old) == []
    assert Newer(steps=3, seed=1).differences_from(old) == ["seed: 0 there, 1 now"]
    assert Newer(steps=4).differences_from(old) == ["steps: 3 there, 4 now"]
    gone = {**old, "removed": True}
    assert Job(steps=3).differences_from(gone) == ["removed: true there, null now"]
    impossible = {**old, "steps": -1}
    assert Job(steps=3).differences_from(impossible) == ["steps: -1 there, 3 now"]


def test_every_setting_is_described() -> None:
    rows = {key: (kind, default, text) for key, kind, default, text in describe_fields(Job)}
    assert rows["shape.heads"] == ("int", "4", "Attention heads.")
    assert rows["folder"][0] == "path|null"
    assert json.loads(rows["optim"][1])["kind"] == "adamw"


def test_settings_that_may_be_left_out_listed_or_named_are_described_inside() -> None:
    class Holder(Config):
        """Settings that hold others."""

        shape: Shape | None = None
        """Maybe."""
        several: tuple[Shape, ...] = ()
        """A list."""
        named: dict[str, Shape] = {}
        """By name."""

    rows = {key: (kind, default) for key, kind, default, _ in describe_fields(Holder)}
    assert rows["shape"] == ("settings|null", "null")
    assert rows["several"] == ("list of settings", "[]")
    assert rows["named"] == ("mapping of settings", "{}")
    assert (
        rows["shape.heads"] == rows["several[].heads"] == rows["named.NAME.heads"] == ("int", "4")
    )
