"""eval: what a model is worth, as figures that can be compared between models.

Lives here: held-out loss (its arithmetic is in :mod:`regrow.train.held_out`, since the loop needs
it too), n-gram baselines over the same tokens (``ngram.py``, ``baselines.py``), speed of decoding
(``speed.py``), samples of text (``samples.py``), the verb ``evaluate``. And tasks: what one is
(``task.py``), the public ones (``tasks/``), the recall suite (``recall/``), a decoder as a language
model over text (``lm.py``), the harness that asks it (``harness.py``), and the same decoder inside
lm-eval (``lm_eval_seam.py``).
May touch: ``core``, ``io``, ``data``, ``model``, ``train``. Not ``search``, nothing above;
``config.py``, ``task.py``, ``listing.py``, ``tasks/`` and ``recall/`` no torch.

To add a task: see :mod:`regrow.eval.tasks`.

To add a figure to ``evaluate``: one file with a function of a loaded model, its settings in
``config.py``, and its line in ``jobs/evaluate.py``. Each model's figures are committed as soon as
they are measured, so a function need not be resumable itself.
"""
