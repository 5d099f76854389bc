"""io: files that other programs read and write too.

Lives here: Hugging Face folders (``hf.py``: JSON and safetensors, never a pickle), tokenizers
(``tokenizer.py``, ``sentencepiece.py``), where a run keeps what it made (``runs.py``), JSON lines
(``jsonl.py``), parquet tables (``parquet.py``).
May touch: ``core``; torch only inside the functions that make or take tensors. Never a model.
To add a format: one file with a reader that raises InputError naming the file and the fix, and a
writer that goes through :mod:`regrow.core.atomic`.
"""
