"""grow: the one way in which a verb runs, and recipes made of verbs.

Lives here: the table of verbs, ``execute`` (plan, claim, job, result, lineage, page), the recipe
runner, sweeps, the assembly of a family's figures. May touch: every room but ``cli``.
To add a verb: its config class and its ``jobs/<verb>.py`` in the room that it belongs to, then one
entry in ``verbs.py``.
"""
