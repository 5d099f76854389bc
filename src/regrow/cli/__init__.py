"""cli: the ``regrow`` command; thin, one file a group of verbs.

Lives here: reading the command line, printing plans and results, exit codes. What a verb does
lives in the room of its job. May touch: every room.
To add a verb that makes something: nothing here, see ``grow/verbs.py``. To add one that only
reads: a function in the file of its group, registered in ``main.py``.
"""
