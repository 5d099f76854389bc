"""data: from text to training samples.

Lives here: the document table and the steps over it, where documents come from (``sources/``), the
seam to the table engine, the sample that a tokenizer learns from and its fertility, token shards,
and the loader whose sample k is a pure function of (seed, k).
May touch: ``core``, ``io``; pyarrow, Daft (only in ``engine.py``), tokenizers (through
``io/tokenizer.py``), numpy,
scipy, scikit-learn; torch only in ``loader.py`` and ``attributes/``. Never ``model``.
To add a step: one file in ``steps/``, its line in ``steps/__init__.py``. To add a source: one file
in ``sources/``, its line in ``sources/__init__.py``, its settings in ``config.py``.
"""
