"""The verbs ``pretrain`` and ``continue``: ``plan(config)`` and ``run(config, run)`` each."""
