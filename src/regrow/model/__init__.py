"""model: one decoder for every family, and the Hugging Face folders it lives in.

Lives here: the config of a shape (``config.py``, ``presets.py``), closed forms for its parameters,
FLOPs and bytes (``shapes.py``), the decoder and its blocks (``decoder.py``, ``attention.py``,
``mlp.py``, ``norm.py``, ``rope.py``, ``cache.py``), the output head that owns the chunked losses
(``head.py``), how far one model is from another (``divergences/``), generation, one adapter for
each Hugging Face family (``adapters/``), and loading and saving (``folder.py``).
May touch: ``core`` and ``io``; torch, except in ``config.py``, ``presets.py``, ``shapes.py`` and
the adapters, which a plan reads without it. Never data, training or a vertical.
To add a block: one file with a mixer (see ``blocks.py`` for what it must have), its line in
``blocks.BLOCKS`` and its closed form in ``shapes.py``. To add a family: one file in ``adapters/``
and its line in ``adapters.ADAPTERS``.
"""
