"""Real databases for the ledger's tests, see tests/support/databases.py."""

pytest_plugins = ["databases"]
