"""A family's run folder as ``grow`` leaves it, with made-up but plausible figures."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from regrow.core.yaml12 import dump_yaml

SHA = "9f2c1b7e" * 8
DOMAINS = {"code": 0.86, "docstrings": 1.05, "reference": 0.97, "packages": 1.16}
ENV = {
    "cpu": "Common Processor 8000 @ 2.40GHz",
    "cores": 2,
    "memory_bytes": 25_000_000_000,
    "bf16": True,
    "system": "Linux",
    "machine": "x86_64",
    "python": "3.11.9",
    "packages": {"regrow": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
    "OMP_NUM_THREADS": "2",
}
SAMPLE = (
    " return the value of the option.\n\n    If *default* is given, it is used where the\n"
    "    option is not found; else `KeyError` is raised.\n"
)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def records(
    tokens: int,
    start: float,
    end: float,
    *,
    seed: int,
    rows: int = 120,
    kl: bool = False,
    phases: tuple[str, ...] = ("all",),
    lr: float = 2e-3,
) -> list[dict[str, Any]]:
    """Metrics of one stage: losses fall from ``start`` to ``end`` nats per token."""
    noise = random.Random(seed)
    made: list[dict[str, Any]] = []
    for row in range(1, rows + 1):
        share = row / rows
        phase = phases[min(len(phases) - 1, int(share * len(phases) * 0.999))]
        held = end + (start - end) * math.exp(-5 * share)
        loss = held + noise.gauss(0, 0.05)
        record = {"step": 10 * row, "tokens": tokens * row // rows, "loss": loss}
        if kl:
            record["loss"] = record["kl"] = max(0.02, loss - end + 0.2)
        rate = lr * min(1.0, share * 50) * (0.55 + 0.45 * math.cos(math.pi * share))
        record |= {"grad_norm": 0.8, "lr": rate, "phase": phase, "tokens_per_second": 5000.0}
        made.append(record)
        if row % max(1, rows // 8) == 0 or row == rows:
            scored = {"loss": held, "losses": {"code": held * 0.9}, "tokens": 32768}
            made.append(
                {"step": 10 * row, "tokens": record["tokens"], "phase": phase, "validation": scored}
            )
    return made


def bits(loss: float) -> dict[str, float]:
    by_domain = {name: loss * factor / 2.02 for name, factor in DOMAINS.items()}
    return {**by_domain, "all": loss / 2.02}


def write_stage(root: Path, name: str, verb: str, result: dict[str, Any],
                metrics: list[dict[str, Any]] | None = None, config: dict[str, Any] | None = None,
                reads: tuple[tuple[str, str], ...] = ()) -> Path:  # fmt: skip
    """One finished run folder."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"verb": verb, "seed": 0, **(config or {})}
    (folder / "config.yaml").write_text(dump_yaml(settings), encoding="utf-8")
    write_json(folder / "env.json", ENV)
    write_json(folder / "result.json", {"verb": verb, "run": f"runs/{root.name}/{name}", **result})
    write_json(folder / "status.json", {"state": "running", "verb": verb})
    write_json(folder / "lineage.json", {"verb": verb, "run": str(folder), "parents": []})
    inputs = [
        {"role": role, "path": f"runs/family/{stage}/export", "sha256": SHA, "bytes": 4_733_012,
         "run": f"runs/family/{stage}", "files": {}}
        for role, stage in reads
    ]  # fmt: skip
    write_json(folder / "inputs.json", inputs)
    (folder / "lock").touch()
    if metrics:
        lines = "".join(json.dumps(record) + "\n" for record in metrics)
        (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


CURATE = {
    "documents": {
        name: {"train": 900 + 37 * at, "validation": 40 + at, "test": 38 + at}
        for at, name in enumerate(DOMAINS)
    },
    "bytes": {
        name: {"train": 4_000_000 + 12_345 * at, "validation": 170_000, "test": 168_000}
        for at, name in enumerate(DOMAINS)
    },
    "total_documents": 4142,
    "total_bytes": 17_426_070,
    "steps": [
        {"step": "gather", "in": 4610, "out": 4500, "dropped": {"too short": 96},
         "quarantined": {"not UTF-8": 14}},
        {"step": "exact", "in": 4500, "out": 4142, "dropped": {"duplicate": 358}},
        {"step": "split", "in": 4142, "out": 4142, "dropped": {}, "quarantined": {}},
    ],
    "seconds_by_step": {"gather": 4.1, "exact": 0.4, "split": 0.9},
    "seconds": 5.6,
}  # fmt: skip


def training_result(loss: float, tokens: int, seconds: float, parameters: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "tokens": tokens,
        "steps": tokens // 4096,
        "flops": 6 * parameters * tokens,
        "loss": loss,
        "losses": {name: loss * factor for name, factor in DOMAINS.items()},
        "bits_per_byte": bits(loss),
        "training_loss": loss - 0.1,
        "seconds_training": seconds - 4,
        "tokens_per_second": 5120.3,
        "parameters": parameters + 786_432,
        "non_embedding_parameters": parameters,
        "weights_sha256": SHA,
        "schedule": {
            "name": "cosine",
            "lr": 2e-3,
            "phases": [{"name": "all", "weights": {"code": 0.5, "packages": 0.5},
                        "first_step": 0, "first_token": 0}],
        },
        "ledger": {name: {"tokens": tokens // 4, "epochs": 0.61} for name in DOMAINS},
    }  # fmt: skip


def _model(name: str, parent: str | None, kind: str, size: int, tokens: int, loss: float,
           twin: str | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name,
        "parent": parent,
        "kind": kind,
        "twin": twin,
        "loss": loss,
        "bits_per_byte": bits(loss),
        "decode_tokens_per_second": round(640 * (1_183_744 / size) ** 0.5, 1),
        "bytes": 4 * (size + 786_432) + 60_000,
        "parameters": size + 786_432,
        "non_embedding_parameters": size,
        "samples": [{"prompt": "def get(self, key, default=None):", "text": SAMPLE},
                    {"prompt": "The function", "text": SAMPLE}],
        "tokens": tokens,
        "flops": 6 * (size + 524_288) * tokens,
        "teacher_flops": 2 * 1_700_000 * tokens if kind == "distilled" else 0,
        "seconds": 4.2 if kind == "pruned" else round(tokens / 5000, 2),
        "learning_rate": 2e-3,
        "path": f"runs/family/{name}/export",
        **more,
    }  # fmt: skip


SIZES = {"": 1_183_744, "50": 597_120, "30": 367_104}


def family_models(chain: bool = True) -> list[dict[str, Any]]:
    """Base, continuation, two pruned, two distilled, two twins and the twins trained longer.

    Args:
        chain: the smaller child comes from the larger one; else both from the continuation.
    """
    models = [
        _model("base", None, "base", SIZES[""], 1_000_000, 3.912),
        _model("continued", "base", "continued", SIZES[""], 300_000, 3.741),
    ]
    twins = []
    source = "continued"
    for size, child, twin, longer in (("50", 3.842, 4.102, 3.871), ("30", 4.037, 4.018, 3.95)):
        count = SIZES[size]
        models += [
            _model(f"pruned-{size}", source, "pruned", count, 0, 6.92),
            _model(f"child-{size}", f"pruned-{size}", "distilled", count, 300_000, child,
                   twin=f"scratch-{size}"),
        ]  # fmt: skip
        twins += [
            _model(f"scratch-{size}", None, "scratch", count, 300_000, twin),
            _model(f"scratch-{size}-2x", None, "scratch", count, 600_000, longer),
        ]
        source = f"child-{size}" if chain else source
    return models + twins


def family_result(models: list[dict[str, Any]]) -> dict[str, Any]:
    baselines = {"unigram": 6.31, "bigram": 4.61}
    spent = sum(m["flops"] + m["teacher_flops"] for m in models if m["kind"] != "scratch")
    return {
        "verb": "grow",
        "run": "runs/family",
        "seconds": 552.3,
        "name": "family",
        "stage_seconds": {"corpus": 5.6, **{m["name"]: m["seconds"] for m in models}},
        "models": models,
        "baselines": {
            name: {"loss": loss, "bits_per_byte": bits(loss)} for name, loss in baselines.items()
        },
        "cost": {
            "family": {"flops": spent, "tokens": 1_900_000},
            "scratch": {"flops": round(spent * 1.43), "tokens": 3_900_000},
            "flops_ratio": 1.43,
            "tokens_ratio": 2.05,
            "rejected_trials": {"flops": 2 * 10**12, "tokens": 600_000},
            "twins": {"flops": 5 * 10**12, "tokens": 1_800_000},
        },
        "evaluation": {"split": "test", "tokens": 131_072, "threads": 2},
    }


_VERB = {"base": "pretrain", "continued": "continue", "pruned": "prune", "distilled": "distill",
         "scratch": "pretrain"}  # fmt: skip


def write_family(root: Path, models: list[dict[str, Any]] | None = None, rows: int = 120) -> Path:
    """The whole family's run folder at ``root``."""
    models = family_models() if models is None else models
    write_stage(root, "corpus", "curate run", CURATE, config={"sources": [{"kind": "python",
                "domains": list(DOMAINS)}], "steps": ["exact", "split"]})  # fmt: skip
    for at, model in enumerate(models):
        kind, loss, tokens = model["kind"], model["loss"], model["tokens"]
        result = training_result(loss, tokens, model["seconds"], model["non_embedding_parameters"])
        metrics = None
        if kind == "pruned":
            result = {"seconds": 4.2, "tokens": 0, "flops": 10**9, "loss": loss,
                      "parameters": model["parameters"]}  # fmt: skip
        else:
            start = {"base": 8.3, "scratch": 8.3, "continued": 3.95}.get(kind, 6.9)
            phases = ("general", "quality") if kind == "continued" else ("all",)
            metrics = records(
                tokens, start, loss, seed=at, rows=rows, kl=kind == "distilled", phases=phases
            )
        folder = model["path"].split("/")[-2]
        if kind == "scratch":
            trials = [
                {"value": lr, "run": f"trials/optim.lr={lr}", "loss": loss + at_ * 0.08,
                 "tokens": tokens, "flops": model["flops"], "seconds": model["seconds"]}
                for at_, lr in enumerate((0.002, 0.004))
            ]  # fmt: skip
            result["sweep"] = {"verb": "pretrain", "key": "optim.lr", "best": "optim.lr=0.002",
                               "trials": trials}  # fmt: skip
        verb = "sweep" if kind == "scratch" else _VERB.get(kind, kind)
        reads = ((("student" if kind == "distilled" else "model"), str(model["parent"])),)
        write_stage(root, folder, verb, result, metrics, reads=reads if model["parent"] else ())
    write_json(root / "result.json", family_result(models))
    write_json(root / "env.json", ENV)
    write_json(root / "status.json", {"state": "running", "verb": "grow"})
    write_json(root / "lineage.json", {"verb": "grow", "parents": []})
    write_json(root / "inputs.json", [])
    stages = {
        m["name"]: {"verb": _VERB.get(m["kind"], m["kind"]), "config": {"seed": 0}} for m in models
    }
    (root / "config.yaml").write_text(
        dump_yaml({"verb": "grow", "name": "family", "stages": stages}), encoding="utf-8"
    )
    return root
