"""Fixtures of tests/support: databases and an API server."""

pytest_plugins = ["api_server", "databases"]
