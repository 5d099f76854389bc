"""Settings of ``pretrain`` and ``continue``; no torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from regrow.core.config import Config
from regrow.model.shape_config import ShapeConfig
from regrow.train.batches import Batches
from regrow.train.guard import GuardRules
from regrow.train.schedule import Schedule, ScheduleName

__all__ = [
    "BudgetConfig",
    "ContinueConfig",
    "ContinueOptimConfig",
    "ControlConfig",
    "DataConfig",
    "EvalConfig",
    "GuardConfig",
    "LogConfig",
    "OptimBase",
    "OptimConfig",
    "PhaseConfig",
    "PretrainConfig",
    "RampConfig",
    "SaveConfig",
    "ShapeConfig",
    "StageConfig",
    "UntilConfig",
]

# Nobody wants to count the zeros of 300 billion.
SWITCH_LR_FRACTION = 0.2


def _whole(value: Any) -> Any:
    """``1e6`` is how people write a million; 1.5 tokens remain an error."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole)]


class UntilConfig(Config):
    """Where a phase ends; exactly one of the three."""

    tokens: Count | None = Field(default=None, gt=0)
    """After so many tokens of the run."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """After this share of the run's tokens."""
    lr_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Before the first step whose learning rate is at most this share of the peak."""

    @model_validator(mode="after")
    def _one(self) -> UntilConfig:
        given = [k for k in ("tokens", "fraction", "lr_fraction") if getattr(self, k) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of tokens, fraction, lr_fraction, not {named}")
        return self


class PhaseConfig(Config):
    """A blend of sources for a part of the run."""

    name: str
    """What the phase is called in metrics and plots."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """Source to its share of the tokens; shares need not sum to 1."""
    until: UntilConfig | None = None
    """Where it ends; the last phase ends with the run and has none."""


class DataConfig(Config):
    """What is read, and in which order."""

    shards: Path
    """A run folder of ``tokenize``, or its shards folder."""
    sequence: Count = Field(default=256, gt=0)
    """Tokens of one training sample."""
    document_mask: bool = False
    """Whether attention and positions stay inside a document."""
    seed: int = Field(default=0, ge=0)
    """Decides the order of the samples."""
    phases: tuple[PhaseConfig, ...] = ()
    """Blends in order; by default one, with every source in its natural share."""
    max_epochs: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Source to how often it may be read at most; one that would be read more often is refused."""

    @model_validator(mode="after")
    def _names(self) -> DataConfig:
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"phases: the name {twice[0]!r} stands twice")
        return self


class RampConfig(Config):
    """One stage of a batch ramp."""

    batch_tokens: Count = Field(gt=0)
    """Tokens of one optimiser step."""
    tokens: Count = Field(gt=0)
    """Tokens that are trained in such steps."""


class BudgetConfig(Config):
    """How much is trained, in which pieces."""

    tokens: Count = Field(gt=0)
    """Tokens to train on; rounded down to whole steps."""
    batch_tokens: Count = Field(default=4096, gt=0)
    """Tokens of one optimiser step."""
    batch_ramp: tuple[RampConfig, ...] = ()
    """Smaller batches to begin with, in order; ``batch_tokens`` holds behind them."""
    micro_batch: Count = Field(default=8, gt=0)
    """Sequences in memory at once; has no influence on the result beyond rounding."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the model (its weights stay fp32); auto: the
    faster, timed at the model's own sizes."""
    activation_checkpointing: bool = False
    """Whether blocks are run again in the backward pass instead of keeping what they made: a third
    more work, a fraction of the memory."""
    compile: bool | Literal["auto"] = "auto"
    """Whether attention and MLP blocks are compiled for training; auto: on a GPU, and on a CPU for
    runs of more than about half an hour."""
    grad_clip: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0 for no limit."""
    threads: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """CPU threads; auto: the cores that this process may use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: the GPU where there is one."""
    peak_flops: float = Field(default=0, ge=0)
    """FLOP per second that the device can do, for the utilisation in the metrics; 0 if unknown."""

    def batches(self) -> Batches:
        """Tokens of each step: the ramp, then as many whole batches as the budget has room for.

        Raises:
            ValueError: the ramp leaves no room.
        """
        ramp = [(stage.batch_tokens, stage.tokens) for stage in self.batch_ramp]
        return Batches.of(self.tokens, self.batch_tokens, ramp)


class GuardConfig(Config):
    """What happens to a step with an absurd gradient."""

    max_grad_norm_sigma: float = Field(default=6.0, ge=0)
    """A gradient norm more than this many standard deviations above the mean of the last 128 steps,
    and more than twice the second largest of them, is a spike; 0: none is."""
    on_spike: Literal["skip", "stop"] = "skip"
    """skip: the data of a spike are consumed, but the step is not taken; stop: the run ends."""
    on_nan: Literal["skip", "stop"] = "stop"
    """The same for a gradient that is not finite."""
    max_skips: int = Field(default=8, ge=0)
    """Skipped steps among the last 128; one more ends the run."""

    def rules(self) -> GuardRules:
        """The same for the loop."""
        return GuardRules(self.max_grad_norm_sigma, self.on_spike, self.on_nan, self.max_skips)


class OptimBase(Config):
    """AdamW and its schedule."""

    schedule: ScheduleName = "cosine"
    """Curve of the learning rate over the consumed tokens, after the warmup."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """wsd: share of the tokens over which the rate decays."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """Decay rates of the two moments."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices; vectors (norms, biases) never decay."""

    @model_validator(mode="after")
    def _has_effect(self) -> OptimBase:
        if self.schedule != "wsd" and "decay_fraction" in self.model_fields_set:
            default = type(self).model_fields["decay_fraction"].default
            if self.decay_fraction != default:
                raise ValueError(f"decay_fraction has no effect with schedule {self.schedule}")
        return self


class OptimConfig(OptimBase):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    min_ratio: float = Field(default=0.1, ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    warmup_tokens: Count | Literal["auto"] = "auto"
    """Tokens over which the rate rises from 0; auto: 2 % of the run."""

    def resolve(self, tokens: int) -> Schedule:
        """The schedule over ``tokens`` tokens."""
        warmup = tokens // 50 if self.warmup_tokens == "auto" else self.warmup_tokens
        return Schedule(self.schedule, self.lr, tokens, self.min_ratio, warmup, self.decay_fraction)


class ContinueOptimConfig(OptimBase):
    """AdamW and its schedule, starting where the pretraining ended."""

    start: Annotated[float, Field(gt=0)] | Literal["pretrain_min"] = "pretrain_min"
    """Learning rate at the start; pretrain_min: the last one of the model's own pretraining."""
    min_ratio: float = Field(default=0.01, ge=0, le=1)
    """Learning rate at the end, as a share of the start."""
    warmup_tokens: Count = Field(default=0, ge=0)
    """Tokens over which the rate rises from 0; the recipe has none."""
    load_state: bool | Literal["auto"] = "auto"
    """Whether to go on with the optimiser state of the pretraining; auto: where it is there."""

    def resolve(self, tokens: int, start: float) -> Schedule:
        """The schedule over ``tokens`` tokens, from the resolved ``start``."""
        return Schedule(
            self.schedule, start, tokens, self.min_ratio, self.warmup_tokens, self.decay_fraction
        )


class EvalConfig(Config):
    """Held-out loss during training."""

    every_tokens: Count = Field(default=0, ge=0)
    """Tokens between two evaluations; 0: only at the end."""
    tokens: Count = Field(default=32_768, gt=0)
    """Held-out tokens of each source, at most."""
    split: Literal["validation", "test"] = "validation"
    """Which held-out split."""


class SaveConfig(Config):
    """Checkpoints."""

    every_tokens: Count = Field(default=500_000, ge=0)
    """Tokens between two checkpoints; 0: only at the end and when interrupted."""
    keep: int = Field(default=2, ge=2)
    """How many of the newest stay."""


class LogConfig(Config):
    """Records of ``metrics.jsonl``."""

    every_steps: int = Field(default=10, gt=0)
    """Steps over which one record averages."""
    tensorboard: bool = False
    """Whether the records are written as TensorBoard events too, in ``tensorboard/``."""

    def callbacks(self) -> tuple[str, ...]:
        """Names of the callbacks that are asked for."""
        return ("tensorboard",) if self.tensorboard else ()


class ParallelConfig(Config):
    """How several processes share the work; torchrun says how many there are."""

    tp: int = Field(default=1, gt=0)
    """Processes that hold one replica together (tensor parallelism); FSDP shards over the rest."""


class StageConfig(Config):
    """What every training stage has."""

    spreading: ClassVar[tuple[str, ...]] = ("parallel",)

    seed: int = Field(default=0, ge=0)
    """Decides the initial weights and whatever else is random, but for the order of samples."""
    data: DataConfig
    """What is read."""
    train: BudgetConfig
    """How much is trained."""
    optim: OptimBase
    """Optimiser and learning rate."""
    eval: EvalConfig = EvalConfig()
    """Held-out loss during training."""
    save: SaveConfig = SaveConfig()
    """Checkpoints."""
    log: LogConfig = LogConfig()
    """Metrics."""
    guard: GuardConfig = GuardConfig()
    """Steps that are not taken."""
    parallel: ParallelConfig = ParallelConfig()
    """Several processes; may change when a run goes on."""

    @model_validator(mode="after")
    def _batches(self) -> StageConfig:
        self._derive()
        micro = self.train.micro_batch * self.data.sequence
        sizes = {"train.batch_tokens": self.train.batch_tokens}
        for index, stage in enumerate(self.train.batch_ramp):
            sizes[f"train.batch_ramp.{index}.batch_tokens"] = stage.batch_tokens
        for key, size in sizes.items():
            if size % micro:
                lower = max(1, size // micro) * micro
                raise ValueError(
                    f"{key} {size} is no multiple of micro_batch x "
                    f"sequence = {self.train.micro_batch} x {self.data.sequence} = {micro}; "
                    f"use {lower} or another micro_batch"
                )
        if self.train.tokens < self.train.batch_tokens:
            raise ValueError(
                f"train.tokens {self.train.tokens} is less than one step of "
                f"train.batch_tokens {self.train.batch_tokens}"
            )
        try:
            self.train.batches()
        except ValueError as error:
            raise ValueError(f"train.batch_ramp: {error}") from None
        return self

    def _derive(self) -> None:
        """Fill in what follows from other settings, before they are compared."""


class PretrainConfig(StageConfig):
    """Train a model from random weights."""

    model: ShapeConfig
    """Its shape: a preset, settings of a shape, or a preset with some settings changed."""
    tokenizer: Path | None = None
    """The tokenizer of the shards, to go with the exported model; found by itself when the shards
    come from a ``tokenize`` run."""
    optim: OptimConfig = OptimConfig()
    """Optimiser and learning rate."""


class ControlConfig(Config):
    """What the control arm reads."""

    weights: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Source to its share of the control's tokens; by default the blend that the run which made
    the model has recorded, over all its phases."""


class ContinueConfig(StageConfig):
    """Continue the training of a checkpoint with a two-phase blend."""

    model: Path
    """A run folder with a model, or a Hugging Face folder; for ``--dry-run``, a preset too."""
    optim: ContinueOptimConfig = ContinueOptimConfig()
    """Optimiser and learning rate."""
    control_arm: bool = False
    """Whether the same budget, schedule and seeds are also spent on the pretraining's blend, to
    tell what the recipe gained over longer training."""
    control: ControlConfig = ControlConfig()
    """The control arm."""
    extend_to: Count | None = Field(default=None, gt=0)
    """Longest sequence of the continued model, more than so far; also ``data.sequence`` where that
    is not set."""
    rope_theta: float | None = Field(default=None, gt=0)
    """Base of the rotary frequencies after ``extend_to``; by default
    theta (N / old)^(r / (r - 2)), with r rotated channels of a head."""

    def _derive(self) -> None:
        if self.extend_to is not None and "sequence" not in self.data.model_fields_set:
            self.__dict__["data"] = self.data.model_copy(update={"sequence": self.extend_to})

    @model_validator(mode="after")
    def _have_effect(self) -> ContinueConfig:
        if self.control.weights and not self.control_arm:
            raise ValueError("control.weights has no effect without control_arm: true")
        if self.rope_theta is not None and self.extend_to is None:
            raise ValueError("rope_theta has no effect without extend_to")
        return self

    @model_validator(mode="after")
    def _switch(self) -> ContinueConfig:
        phases = self.data.phases
        if len(phases) == 2 and phases[0].until is None:
            until = UntilConfig(lr_fraction=SWITCH_LR_FRACTION)
            first = phases[0].model_copy(update={"until": until})
            data = self.data.model_copy(update={"phases": (first, phases[1])})
            self.__dict__["data"] = data  # frozen for its users, not for its validator
        return self
