"""train: the one training loop, and what it needs around it.

Lives here: the loop (``trainer.py``), the objective seam and the objectives, optimiser, schedules
and data phases as functions of consumed tokens, growing batches, the guard against spikes, who else
is told of the records (``callbacks/``), checkpoints, held-out loss, the verbs ``pretrain`` and
``continue``.
May touch: ``core``, ``io``, ``data``, ``model``, torch. Nothing above; ``config.py`` no torch.

To add an objective: one file in ``objectives/`` with a class that has

* ``loss(batch) -> Loss``: the differentiable **sum** over a micro-batch, its weight (how many
  targets were summed) and metrics, also as sums. Never a mean: the loop divides by the weight of
  the whole global batch, so that the result does not depend on how the batch was split.
* ``trainable() -> nn.Module``: the one module whose parameters are optimised and saved. A frozen
  teacher stays outside of it.

and a line in ``objectives/__init__.py``. An objective that must own its backward passes (gradient
caching) has ``step(batch) -> Loss`` as well: it is given the whole global batch, leaves the
gradient of the *sum* in the parameters and returns detached figures.

To add a kind of model: one :class:`regrow.train.trainer.ModelKind`, a record of how to export it
and what to sample. To add a schedule: one function in ``schedule.py`` and its name there.
"""
