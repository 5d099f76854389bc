"""compress: smaller siblings of a model, by cutting away what matters least and distilling.

Lives here: importance scores from one forward pass (``importance.py``, ``score_file.py``; of what
does not fit, ``streamed_importance.py``), what they say should stay (``ranking.py``), which
layers go (``depth.py``; tried out in ``sweep.py``), the cut itself (``slicing.py``; of a folder,
shard by shard, ``streamed_prune.py``), target shapes and the search for one within budgets
(``shapes.py``, ``shape_search.py``, ``budgets.py``; ``latency.py`` measures), the verbs
``importance``, ``prune``, ``distill`` and ``family`` (``jobs/``; the distillation loss is an
objective of ``train``), and what ``family`` adds to the others: candidates and their trials
(``family_*.py``).
May touch: ``core``, ``io``, ``data``, ``model``, ``train``, ``eval``, ``search``. No other
vertical; ``*_config.py``, ``depth.py``, ``source.py``, ``budgets.py``, ``shapes.py``,
``shape_search.py`` no torch.

To teach it a new kind of block: one entry in ``slicing.CUTS`` (which index list each dimension of
its tensors follows), one in ``importance.SITES`` (whose input scores its channels), its closed form
in ``shape_search.count``, and where it has an axis of its own, a field in ``slicing.Keep``.
To add a way of scoring layers: a ``sweep.Measure``, or a ``depth.Damage`` from the statistics.

Source: Minitron (arXiv 2407.14679) and its practice report (arXiv 2408.11796).
"""
