"""search: what to try next, what came of it, and what is best in several respects.

Lives here: the ask/tell seam (``optimiser.py``: trials, outcomes, the loop that joins an optimiser
to a log), the log that outlives a kill (``log.py``), optimisers (``halving.py``, ``sampling.py``),
the Pareto front (``pareto.py``) and rank correlations (``ranks.py``).
May touch: ``core``. It knows nothing of models: a point is a JSON object, and whoever searches says
what it is worth.

To add an optimiser: a class with ``ask`` and ``tell`` in a file of its own. It decides only by what
it was told, in any order of a batch, so that a log told again brings it to the same place; and it
asks again for what it was not told of.
"""
