"""The verbs of this room: ``curate``, ``tokenizer``, ``tokenize``."""
