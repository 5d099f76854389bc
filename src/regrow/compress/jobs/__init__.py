"""The verbs of this room: ``plan(config)`` and ``run(config, run)`` each."""
