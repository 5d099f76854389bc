"""core: what every other room stands on, and nothing that knows of models.

Lives here: typed config, the run folder with its lock and records, atomic files, lineage, the
registry, errors with their exit codes, seeds, hardware, progress, the Plan record.
May touch: the standard library, pydantic, ruamel.yaml, rich. Never torch, never another room.
To add an error: one class in ``errors.py`` with its exit code. To add a file of the run folder:
``run.py``, and its line in docs/runs.md.
"""
