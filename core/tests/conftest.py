"""Real databases and a real API server, see tests/support."""

pytest_plugins = ["api_server", "databases"]
