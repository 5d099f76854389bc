"""``curate weights``: a blend from counts alone; nothing is read but counts, nothing is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from regrow.core.atomic import read_json
from regrow.core.errors import ConfigError, InputError
from regrow.core.yaml12 import read_yaml
from regrow.data.epochs import check_labels, values_of
from regrow.data.settings.sample import WeightsConfig
from regrow.data.weights import Values, bucketed, spread, table
from regrow.io.parquet import read_batches

TRAIN = "train"


def mixture(counts: Path, config: WeightsConfig) -> dict[str, Any]:
    """The blend of a table of counts, or of a run.

    Args:
        counts: a JSON or YAML file of bucket to tokens, nested where ``config.buckets`` names
            several columns; or a run folder of ``curate run`` or ``tokenize``.
        config: the method and the budget.

    Returns:
        ``unit`` (``tokens``, or ``bytes`` of a run of ``curate run``, whose documents have no
        tokens yet), ``method``, ``total_tokens`` (in that unit), and ``buckets``: name to
        ``available``, ``tokens``, ``share`` and ``epochs``.

    Raises:
        InputError: no such file or folder, no table of counts, or no such column.
        ConfigError: a blend that cannot be.
    """
    found, unit = _counts(Path(counts), config)
    buckets = bucketed(found, config)
    shares = spread(buckets.tokens, config, buckets.multipliers)
    return {"unit": unit, "method": config.method, **table(shares)}


def described(told: Mapping[str, Any]) -> list[str]:
    """The same as lines of text."""
    unit = told["unit"]
    rows = [("bucket", unit, f"{unit} read", "share", "epochs")]
    rows += [
        (
            name,
            f"{one['available']:,}",
            f"{one['tokens']:,.0f}",
            f"{one['share']:.4f}",
            f"{one['epochs']:.3f}",
        )
        for name, one in told["buckets"].items()
    ]
    rows.append(("all", "", f"{told['total_tokens']:,.0f}", "1.0000", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _counts(path: Path, config: WeightsConfig) -> tuple[dict[Values, int], str]:
    if path.is_file():
        return _of_table(path, len(config.buckets)), "tokens"
    if (path / "documents" / f"{TRAIN}.parquet").is_file():
        return _of_documents(path / "documents" / f"{TRAIN}.parquet", config), "bytes"
    if (path / "result.json").is_file():
        tokens = read_json(path / "result.json").get("tokens")
        if isinstance(tokens, dict) and isinstance(tokens.get(TRAIN), dict):
            return _of_shards(path, tokens[TRAIN], config), "tokens"
    raise InputError(
        f"{path} is neither a .json or .yaml of counts nor a finished run of curate run or tokenize"
    )


def _of_shards(path: Path, tokens: dict[str, int], config: WeightsConfig) -> dict[Values, int]:
    if config.buckets != ("source",):
        raise ConfigError(
            f"buckets: the shards of {path} know sources only, not {', '.join(config.buckets)}; "
            "name the run of curate run that they were made from"
        )
    return {(name,): count for name, count in tokens.items()}


def _of_documents(path: Path, config: WeightsConfig) -> dict[Values, int]:
    check_labels(path, config.buckets, "buckets")
    counts: Counter[Values] = Counter()
    for batch in read_batches(path, list(dict.fromkeys((*config.buckets, "text")))):
        sizes = pc.binary_length(batch["text"]).to_pylist()
        for values, size in zip(values_of(batch, config.buckets), sizes, strict=True):
            counts[values] += size
    return dict(counts)


def _of_table(path: Path, depth: int) -> dict[Values, int]:
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise InputError(f"{path}: counts are read from .json, .yaml or .yml")
    found, _ = read_yaml(path)  # JSON is YAML
    counts = dict(_leaves(path, found, ()))
    for values, count in counts.items():
        if len(values) != depth:
            raise InputError(
                f"{path}: {'.'.join(values)} is {len(values)} deep, but buckets names {depth} "
                "columns; give as many levels as columns"
            )
        if isinstance(count, bool) or not isinstance(count, (int, float)) or count <= 0:
            raise InputError(f"{path}: {'.'.join(values)} is {count!r}, not a number of tokens")
        if count != int(count):
            raise InputError(f"{path}: {'.'.join(values)} is {count!r}; tokens are whole")
    if not counts:
        raise InputError(f"{path} holds no count; write 'bucket: tokens' lines")
    return {values: int(count) for values, count in counts.items()}


def _leaves(path: Path, value: Any, above: Values) -> Iterator[tuple[Values, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(path, inner, (*above, str(name)))
    elif above:
        yield above, value
    else:
        raise InputError(f"{path} holds {type(value).__name__}, not a table of counts")
