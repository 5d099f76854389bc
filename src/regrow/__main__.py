"""``python -m regrow`` is the ``regrow`` command."""

from regrow.cli.main import main

main()
