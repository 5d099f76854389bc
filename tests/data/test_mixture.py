"""``curate weights``: blends of tables and of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from regrow.cli.main import main
from regrow.core.errors import ConfigError, InputError
from regrow.core.run import Run
from regrow.data.jobs import tokenize as job
from regrow.data.mixture import described, mixture
from regrow.data.settings.sample import WeightsConfig
from tests.data.test_epochs import configured, inputs

__all__ = ["inputs"]


def test_a_table_of_counts_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "counts.yaml"
    path.write_text("law: 10\ncode: 30\nweb: 6e1\n")
    told = mixture(path, WeightsConfig(method="unimax", max_epochs=1.0, total_tokens=60))
    assert told["unit"] == "tokens"
    assert told["total_tokens"] == 60
    assert {name: one["tokens"] for name, one in told["buckets"].items()} == {
        "code": 25,
        "law": 10,
        "web": 25,
    }
    assert described(told) == [
        "bucket  tokens  tokens read   share  epochs",
        "code        30           25  0.4167   0.833",
        "law         10           10  0.1667   1.000",
        "web         60           25  0.4167   0.417",
        "all                      60  1.0000",
    ]


def test_a_nested_table_is_of_several_columns(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"High": {"Law": 100, "Games": 300}, "Low": {"Law": 600}}))
    config = WeightsConfig(
        buckets=("quality", "domain"), multipliers={"quality": {"High": 2.0, "Low": 0.5}}
    )
    found = mixture(path, config)["buckets"]
    # 200 : 600 : 300 of 1,100.
    assert {n: one["tokens"] for n, one in found.items()} == pytest.approx(
        {"High_Games": 600 / 1.1, "High_Law": 200 / 1.1, "Low_Law": 300 / 1.1}
    )
    with pytest.raises(InputError, match=r"High\.Law is 2 deep, but buckets names 1 columns"):
        mixture(path, WeightsConfig())


def test_runs_of_both_kinds(inputs: dict[str, Path], claim: Callable[..., Run]) -> None:
    curated = inputs["documents"].parent
    rows = pq.read_table(inputs["documents"] / "train.parquet").to_pylist()
    told = mixture(curated, WeightsConfig(buckets=("quality",)))
    assert told["unit"] == "bytes"
    for name, one in told["buckets"].items():
        value = None if name == "unknown" else name
        mine = sum(len(row["text"].encode()) for row in rows if row["quality"] == value)
        assert (one["available"], one["epochs"]) == (mine, 1)
    run = claim("tokenize", configured(inputs).replace(sample=None))
    result = job.run(run.config, run)
    (run.path / "result.json").write_text(json.dumps(result))
    told = mixture(run.path, WeightsConfig(method="uniform"))
    assert {n: one["available"] for n, one in told["buckets"].items()} == result["tokens"]["train"]
    with pytest.raises(ConfigError, match="know sources only, not quality"):
        mixture(run.path, WeightsConfig(buckets=("quality",)))
    with pytest.raises(InputError, match="no column 'qualty', did you mean quality"):
        mixture(curated, WeightsConfig(buckets=("qualty",)))
    with pytest.raises(InputError, match="buckets: toxicity holds float, not labels"):
        mixture(curated, WeightsConfig(buckets=("toxicity",)))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1, 2]", "holds list, not a table"),
        ("a: -1", "a is -1, not a number of tokens"),
        ("a: many", "a is 'many', not a number"),
        ("a: true", "a is True, not a number"),
        ("a: 1.5", "tokens are whole"),
        ("{}", "holds no count"),
    ],
)
def test_tables_that_are_none(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "counts.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        mixture(tmp_path / "counts.yaml", WeightsConfig())
    assert part in str(error.value)


def test_what_is_no_table_and_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is neither a"):
        mixture(tmp_path / "none", WeightsConfig())
    (tmp_path / "counts.csv").write_text("a,1")
    with pytest.raises(InputError, match=r"read from \.json"):
        mixture(tmp_path / "counts.csv", WeightsConfig())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "counts.json").write_text('{"a": 10, "b": 90}')

    def regrow(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["curate", "weights", str(tmp_path / "counts.json"), *words])
        return int(end.value.code or 0), *capsys.readouterr()

    code, out, _ = regrow("method=alpha", "alpha=0.5", "--json")
    told = json.loads(out.splitlines()[-1])
    assert (code, told["verb"]) == (0, "curate weights")
    assert told["buckets"]["b"]["share"] == pytest.approx(0.75)  # 3 : 1
    assert "share" in regrow()[1]
    code, _, err = regrow("method=unimax", "max_epochs=1", "total_tokens=1e3")
    assert code == 2
    assert "total_tokens: 1,000 is more than 1 times the 100 tokens" in err
    assert regrow("more")[0] == 2
