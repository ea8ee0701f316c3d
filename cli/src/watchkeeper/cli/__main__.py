"""Run the command line with ``python -m watchkeeper.cli``."""

from watchkeeper.cli.main import app

app()
