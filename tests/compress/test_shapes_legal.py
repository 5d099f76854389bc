"""What a model can be cut to: against what the stock classes can hold, and the published shapes."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from regrow.compress.depth import layer_blocks
from regrow.compress.depth_config import DepthConfig
from regrow.compress.prune_config import ShapeTarget
from regrow.compress.shapes import resized, size_of, target_config
from regrow.core.errors import ConfigError
from regrow.model.adapters import ADAPTERS
from regrow.model.config import LAYOUTS, MambaConfig, ModelConfig
from regrow.model.presets import PRESETS
from regrow.model.shapes import non_embedding_parameters, parameters
from tests.compress.makers import FAMILIES

NEMO_12B = ModelConfig(
    layout="mistral", layers=40, hidden_size=5120, intermediate_size=14336, heads=32, kv_heads=8,
    head_dim=128, vocab_size=131072,
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "shape", "total", "inside"),
    [
        (
            "nemotron4-15b", {"hidden_size": 4096, "intermediate_size": 16384},
            8_271_699_968, 6_174_547_968,
        ),
        (
            "nemotron4-15b", {"hidden_size": 3072, "intermediate_size": 9216, "heads": 24},
            4_190_509_056, 2_617_645_056,
        ),
        (
            "minitron-8b", {"hidden_size": 3072, "intermediate_size": 9216, "heads": 24},
            4_190_509_056, 2_617_645_056,
        ),
        (
            "llama31-8b", {"hidden_size": 3072, "intermediate_size": 9216},
            4_512_746_496, 3_724_741_632,
        ),
        ("llama31-8b", {"layers": 16}, 4_540_469_248, 3_489_796_096),
        (
            "nemo-12b", {"hidden_size": 4096, "intermediate_size": 11520},
            8_414_105_600, 7_340_363_776,
        ),
    ],
)  # fmt: skip
def test_published_shapes_are_legal_cuts_of_their_sources(
    source: str, shape: dict[str, int], total: int, inside: int
) -> None:
    whole = NEMO_12B if source == "nemo-12b" else PRESETS[source]
    config = target_config(whole, ShapeTarget(**shape))
    assert (parameters(config), non_embedding_parameters(config)) == (total, inside)
    assert config.head_dim == 128


def test_the_published_hybrid_has_as_many_parameters_as_the_stock_class() -> None:
    """Nemotron-H 8B to 4B: 112 of 128 Mamba-2 heads; and less depth, from a known choice."""
    from transformers import AutoModelForCausalLM

    source = PRESETS["nemotronh-8b"]
    shape = ShapeTarget(hidden_size=3072, intermediate_size=12288, mamba_heads=112)
    gone = set(range(20, 24))
    kept = tuple(layer for layer in range(52) if layer not in gone)
    for config in (
        target_config(source, shape),
        target_config(source, shape, kept),
        target_config(source, ShapeTarget(mamba_head_dim=48)),
    ):
        with torch.device("meta"):
            stock = AutoModelForCausalLM.from_config(stock_config(config))
        assert stock.num_parameters() == parameters(config)
    assert target_config(source, shape, kept).layers == 48


def source_of(family: str) -> ModelConfig:
    shape: dict[str, Any] = {
        "layout": family, "layers": 4, "hidden_size": 32, "vocab_size": 61, "max_positions": 64,
    }  # fmt: skip
    mamba = MambaConfig(state=4, head_dim=8, heads=8, groups=2, chunk=8)
    if family == "mamba2":
        return ModelConfig(**shape, pattern="MMMM", mamba=mamba)
    attention = {"intermediate_size": 24, "heads": 8, "kv_heads": 2, "head_dim": 4}
    if family == "nemotron_h":
        return ModelConfig(**shape, **attention, pattern="M-*M", mamba=mamba)
    return ModelConfig(**shape, **attention, **LAYOUTS[family])


def stock_config(config: ModelConfig) -> Any:
    """What the adapter writes, unchecked, as transformers reads it."""
    from transformers import AutoConfig

    written = ADAPTERS.get(config.layout).write_config(config)
    if "time_step_limit" in written:  # infinity is an object in JSON only
        written["time_step_limit"] = [written["time_step_limit"][0], math.inf]
    return AutoConfig.for_model(**written)


def holds(config: ModelConfig) -> bool:
    """Whether the stock class can be built, has the very shape, and makes tokens with its cache."""
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_config(stock_config(config)).eval()
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False, pad_token_id=0)
    except Exception:  # whatever it raises, this shape is not one of its
        return False
    return bool(model.num_parameters() == parameters(config))


TARGETS: list[dict[str, int]] = [
    {"hidden_size": 24},
    {"hidden_size": 30},
    {"hidden_size": 16},
    {"heads": 6},
    {"heads": 4, "hidden_size": 16},
    {"heads": 6, "hidden_size": 24},
    {"kv_heads": 1},
    {"intermediate_size": 7},
    {"mamba_heads": 6},
    {"mamba_heads": 4, "hidden_size": 16},
    {"mamba_heads": 7},
    {"mamba_head_dim": 5},
    {"mamba_head_dim": 4, "hidden_size": 16},
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shape_is_refused_just_where_the_stock_class_cannot_hold_it(family: str) -> None:
    source = source_of(family)
    assert holds(source)
    verdicts = set()
    for shape in TARGETS:
        if any(not size_of(source, axis) for axis in shape):
            with pytest.raises(ConfigError, match=r"the source has no .* block"):
                target_config(source, ShapeTarget(**shape))
            continue
        wanted = {
            "heads": shape.get("kv_heads", 2) * 4 * bool(source.heads),
            **shape,
        }
        wanted = {axis: size for axis, size in wanted.items() if size}
        try:
            tried: ModelConfig | None = resized(
                source, wanted, tuple(range(len(layer_blocks(source))))
            )
        except ValueError:
            tried = None
        expected = tried is not None and holds(tried)
        verdicts.add(expected)
        if expected:
            assert target_config(source, ShapeTarget(**shape)) == tried
        else:
            with pytest.raises(ConfigError, match="nearest legal") as caught:
                target_config(source, ShapeTarget(**shape))
            check_nearest(source, shape, str(caught.value))
    assert verdicts == {True, False} or family in ("mistral", "qwen3", "nemotron")


def check_nearest(source: ModelConfig, shape: dict[str, int], message: str) -> None:
    """Each size that is named is legal, and none between it and what was asked for."""
    line = re.search(r"nearest legal sizes, each by itself: (.*)", message)
    if line is None:
        return
    for axis, sizes in re.findall(r"shape\.(\w+) ([\d or]+)", line[1]):
        asked = shape.get(axis) or size_of(source, axis)
        named = [int(size) for size in re.findall(r"\d+", sizes)]
        for size in range(min(*named, asked), max(*named, asked) + 1):
            try:
                target_config(source, ShapeTarget(**{**shape, axis: size}))
            except ConfigError:
                assert size not in named
            else:
                assert size in named


@pytest.mark.parametrize(
    ("family", "shape", "messages"),
    [
        (
            "llama", {"hidden_size": 30},
            ["no multiple of its heads (8)", "shape.hidden_size 24 or 32", "shape.heads 6"],
        ),
        (
            "qwen2", {"hidden_size": 24},
            ["hidden_size 24 is not heads 8 x head_dim 4", "shape.hidden_size 32", "shape.heads 6"],
        ),
        ("nemotron_h", {"mamba_heads": 7}, ["over 2 groups", "nearest legal mamba_heads: 6 or 8"]),
        ("nemotron_h", {"mamba_heads": 9}, ["more than the 8", "nearest legal mamba_heads: 8"]),
        ("nemotron_h", {"layers": 1}, ["cannot stay", "nearest legal layers: 3 or 4"]),
        (
            "mamba2", {"hidden_size": 24},
            ["8 x 8 = 64", "shape.hidden_size 16 or 32", "shape.mamba_heads 6"],
        ),
        ("llama", {"mamba_heads": 4}, ["the source has no Mamba-2 block"]),
        ("mamba2", {"heads": 4}, ["the source has no attention block"]),
    ],
)  # fmt: skip
def test_the_rule_and_the_nearest_sizes_are_named(
    family: str, shape: dict[str, int], messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        target_config(source_of(family), ShapeTarget(**shape))
    for message in messages:
        assert message in str(caught.value)


def test_the_last_attention_block_of_a_hybrid_cannot_go() -> None:
    source = source_of("nemotron_h")
    assert target_config(source, ShapeTarget(layers=3)).pattern == "M*M"
    for gone, legal in (({2}, False), ({1}, True)):
        kept = tuple(layer for layer in range(4) if layer not in gone)
        shape = resized(source, {}, kept)
        assert holds(shape) is legal
        if legal:
            assert target_config(source, None, kept) == shape
        else:
            with pytest.raises(ConfigError, match="without an attention block"):
                target_config(source, None, kept)
    one = target_config(
        source, ShapeTarget(layers=1), None, DepthConfig(allow_ends=True, rule="independent")
    )
    assert one.pattern == "*"


@pytest.mark.parametrize("rule", ["contiguous", "independent"])
def test_a_pattern_that_is_not_known_yet_is_one_that_could_come_out(rule: Any) -> None:
    """Every number of blocks that the rules allow gets a legal pattern of that length."""
    source = source_of("nemotron_h").replace(pattern="M*-*M*-", layers=7)
    depth = DepthConfig(rule=rule)
    for layers in range(1, 8):
        try:
            found = target_config(source, ShapeTarget(layers=layers), None, depth)
        except ConfigError as error:
            assert layers < 3, error  # noqa: PT017
        else:
            assert len(found.pattern) == layers
            assert "*" in found.pattern
            assert not ADAPTERS.get("nemotron_h").check(found)
