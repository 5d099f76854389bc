"""Every verb that makes something: its settings, its plan, its job. One line each.

Nothing is imported until a verb is used, so that ``regrow --help`` stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from regrow.core.config import Config
from regrow.core.errors import ConfigError
from regrow.core.plan import Plan


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Args:
        name: as typed; of two words where it belongs to a group.
        config: ``"module:Class"`` of its settings, in a module that imports no torch.
        job: module with ``plan(config) -> Plan`` and ``run(config, run) -> dict``.
        summary: one line for the list of verbs.
        example: a command that works as it stands, given its inputs.
        bare: settings that bare arguments fill, in order.
        composite: its run folder holds run folders of its parts.
        hidden: only other verbs use it.
        several_processes: torchrun may start it.
        listing: ``"module:function"`` that gives what ``--list`` prints, as lines and as an
            object; in a module that imports no torch.
    """

    name: str
    config: str
    job: str
    summary: str
    example: str
    bare: tuple[str, ...] = ()
    composite: bool = False
    hidden: bool = False
    several_processes: bool = False
    listing: str = ""

    @property
    def group(self) -> str:
        """The first of two words; empty for a verb of one."""
        return self.name.rpartition(" ")[0]

    def config_class(self) -> type[Config]:
        """The class of the verb's settings."""
        module, _, name = self.config.partition(":")
        found: type[Config] = getattr(importlib.import_module(module), name)
        return found

    def plan(self, config: Config) -> Plan:
        """What the verb would do; nothing is written."""
        function: Callable[[Config], Plan] = importlib.import_module(self.job).plan
        return function(config)

    def run(self, config: Config, run: Any) -> dict[str, Any]:
        """Do it, in a claimed run folder."""
        function: Callable[[Config, Any], dict[str, Any]] = importlib.import_module(self.job).run
        return function(config, run)

    def list(self) -> tuple[list[str], dict[str, Any]]:
        """What the verb can be asked for, as lines and as an object.

        Raises:
            ConfigError: there is nothing to list.
        """
        if not self.listing:
            raise ConfigError(f"{self.name} has nothing to list; leave --list out")
        module, _, name = self.listing.partition(":")
        found: tuple[list[str], dict[str, Any]] = getattr(importlib.import_module(module), name)()
        return found


_ALL = (
    Verb(
        "grow",
        "regrow.grow.config:RecipeConfig",
        "regrow.grow.recipe",
        "run a recipe: every stage of a family, then its page",
        "regrow grow recipes/family.yaml --run runs/family",
        composite=True,
    ),
    Verb(
        "curate run",
        "regrow.data.config:CurateConfig",
        "regrow.data.jobs.curate",
        "gather documents, drop what repeats or is poor, split by file",
        "regrow curate run --run runs/corpus",
    ),
    Verb(
        "curate annotate",
        "regrow.data.settings.annotate:AnnotateConfig",
        "regrow.data.jobs.annotate",
        "label documents and train a classifier on the labels",
        "regrow curate annotate runs/corpus attribute=quality model=runs/base --run runs/quality",
        bare=("documents",),
    ),
    Verb(
        "curate decontaminate",
        "regrow.data.settings.decontaminate:DecontaminateConfig",
        "regrow.data.jobs.decontaminate",
        "drop documents that hold 13 words in a row of an evaluation set",
        "regrow curate decontaminate runs/corpus against=[gsm8k,mmlu] --run runs/clean",
        bare=("documents",),
    ),
    Verb(
        "tokenizer",
        "regrow.data.config:TokenizerConfig",
        "regrow.data.jobs.tokenizer",
        "train a tokenizer on the documents of a curate run",
        "regrow tokenizer runs/corpus vocab_size=4096 --run runs/tokenizer",
        bare=("documents",),
    ),
    Verb(
        "tokenize",
        "regrow.data.config:TokenizeConfig",
        "regrow.data.jobs.tokenize",
        "turn documents into token shards",
        "regrow tokenize runs/corpus tokenizer=runs/tokenizer --run runs/shards",
        bare=("documents",),
    ),
    Verb(
        "pretrain",
        "regrow.train.config:PretrainConfig",
        "regrow.train.jobs.pretrain",
        "train a model from random weights",
        "regrow pretrain data.shards=runs/shards model.layers=4 model.hidden_size=128 "
        "train.tokens=1e6 --run runs/base",
        several_processes=True,
    ),
    Verb(
        "continue",
        "regrow.train.config:ContinueConfig",
        "regrow.train.jobs.continue_",
        "continue the training of a checkpoint with a two-phase blend",
        "regrow continue runs/base data.shards=runs/shards train.tokens=3e5 --run runs/continued",
        bare=("model",),
        several_processes=True,
    ),
    Verb(
        "importance",
        "regrow.compress.importance_config:ImportanceConfig",
        "regrow.compress.jobs.importance",
        "score channels, neurons, heads and layers with one forward pass",
        "regrow importance runs/base shards=runs/shards samples=256 --run runs/scores",
        bare=("model",),
    ),
    Verb(
        "prune",
        "regrow.compress.prune_config:PruneConfig",
        "regrow.compress.jobs.prune",
        "cut a model to a shape or to a parameter budget",
        "regrow prune runs/base scores=runs/scores budget.non_embedding_parameters=0.5 "
        "--run runs/pruned",
        bare=("model",),
    ),
    Verb(
        "distill",
        "regrow.compress.distill_config:DistillConfig",
        "regrow.compress.jobs.distill",
        "train a smaller model to match a larger one",
        "regrow distill runs/pruned teacher=runs/base data.shards=runs/shards train.tokens=3e5 "
        "--run runs/child",
        bare=("student",),
        several_processes=True,
    ),
    Verb(
        "family",
        "regrow.compress.family_config:FamilyConfig",
        "regrow.compress.jobs.family",
        "search shapes under budgets, and distil the winners: a family of one model",
        "regrow family runs/base data.shards=runs/shards train.tokens=3e5 "
        "children.half.budget.non_embedding_parameters=0.5 --run runs/children",
        bare=("model",),
    ),
    Verb(
        "evaluate",
        "regrow.eval.config:EvaluateConfig",
        "regrow.eval.jobs.evaluate",
        "held-out loss by domain, decode speed, samples and tasks of one or several models",
        "regrow evaluate runs/base shards=runs/shards --run runs/evaluation",
        bare=("models",),
        listing="regrow.eval.listing:listing",
    ),
    Verb(
        "sweep",
        "regrow.grow.config:SweepConfig",
        "regrow.grow.sweep",
        "run a verb once for each value of a setting and keep the best",
        "",
        hidden=True,
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _ALL}


def get_verb(name: str) -> Verb:
    """The verb called ``name``.

    Raises:
        ConfigError: there is none; lists the known ones.
    """
    if name not in VERBS:
        group = [verb for verb in VERBS if verb.startswith(f"{name} ")]
        close = group or get_close_matches(name, VERBS, n=1)
        hint = f", did you mean {' or '.join(close)}?" if close else ""
        raise ConfigError(f"unknown verb {name!r}{hint} (known: {', '.join(VERBS)})")
    return VERBS[name]
